"""The commands in Python: a thin face over the SQL functions, on a connection to any node.

with shardman.connect(dsn) as db:
    result = db.move_part("accounts_3", 2)
    print(result.status, result.result)
    db.connection.execute("select count(*) from accounts")
"""

from __future__ import annotations

from shardman.client.client import Client, connect
from shardman.client.result import Result

__all__ = ["Client", "Result", "connect"]
