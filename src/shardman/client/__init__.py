"""The cluster in Python: a connection that sends each statement where its rows are, and the commands.

with shardman.connect(dsn) as db:
    db.execute("select * from accounts where id = %s", (7,))     # straight to the owner
    result = db.move_part("accounts_3", 2)
    print(result.status, result.result)
"""

from __future__ import annotations

from shardman.client.async_connection import AsyncConnection
from shardman.client.client import Client
from shardman.client.connection import Connection, connect
from shardman.client.explanation import Route, Sent
from shardman.client.result import Result

__all__ = ["AsyncConnection", "Client", "Connection", "Result", "Route", "Sent", "connect"]
