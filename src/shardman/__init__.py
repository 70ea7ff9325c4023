"""One sharded database out of stock PostgreSQL servers.

import shardman

with shardman.connect(dsn) as db:      # any node; used as a connection of psycopg
    db.execute("select * from accounts where id = %s", (7,))
    db.move_part("accounts_3", 2)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from shardman.errors import Code, UserError

if TYPE_CHECKING:
    from shardman.client import AsyncConnection, Client, Connection, Result, Route, Sent, connect
    from shardman.client.pool import AsyncConnectionPool, ConnectionPool
    from shardman.nodes.holding import hold_commits

_OF_THE_CLIENT = ("AsyncConnection", "Client", "Connection", "Result", "Route", "Sent", "connect")
_OF_THE_POOL = ("AsyncConnectionPool", "ConnectionPool")
_OF_THE_NODES = ("hold_commits",)

__all__ = [
    "AsyncConnection",
    "AsyncConnectionPool",
    "Client",
    "Code",
    "Connection",
    "ConnectionPool",
    "Result",
    "Route",
    "Sent",
    "UserError",
    "connect",
    "hold_commits",
]


def __getattr__(name: str) -> Any:
    """Loads the client when it is first used: the program starts faster without it."""
    if name in _OF_THE_CLIENT:
        return getattr(import_module("shardman.client"), name)
    if name in _OF_THE_POOL:
        return getattr(import_module("shardman.client.pool"), name)
    if name in _OF_THE_NODES:
        return getattr(import_module("shardman.nodes.holding"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
