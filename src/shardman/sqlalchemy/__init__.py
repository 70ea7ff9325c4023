"""`postgresql+shardman://`: SQLAlchemy over `shardman.connect`, by its own dialect for psycopg.

engine = create_engine("postgresql+shardman://app:secret@/app?host=node1:5432&host=node2:5432")
"""

from __future__ import annotations

from shardman.sqlalchemy.dialect import ShardmanDialect, ShardmanDialectAsync
from shardman.sqlalchemy.routes import record_routes, shardman_connection

__all__ = [
    "ShardmanDialect",
    "ShardmanDialectAsync",
    "record_routes",
    "shardman_connection",
]
