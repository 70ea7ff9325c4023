"""Pools of connections for many threads or tasks: psycopg_pool's, of our connections.

A connection has one session on each node that it has sent something to, so a pool has at most
`max_size` of them on each node.
"""

from __future__ import annotations

from typing import Any

try:
    from psycopg_pool import AsyncConnectionPool as _AsyncConnectionPool
    from psycopg_pool import ConnectionPool as _ConnectionPool
except ImportError as error:
    raise ImportError(
        "psycopg_pool is not installed, and pools need it: pip install 'pg-shardman[pool]'"
    ) from error

from shardman.client.async_connection import AsyncConnection
from shardman.client.connection import Connection


class ConnectionPool(_ConnectionPool[Connection[Any]]):
    """As `psycopg_pool.ConnectionPool`, of `shardman.Connection`.

    Args:
        conninfo: of one or several nodes (``host=node1,node2``).
        options: psycopg_pool's; those of `shardman.connect` are in ``kwargs``.
    """

    def __init__(self, conninfo: str = "", **options: Any) -> None:
        super().__init__(
            conninfo, **{"connection_class": Connection, "reset": _reset(options), **options}
        )


class AsyncConnectionPool(_AsyncConnectionPool[AsyncConnection[Any]]):
    """As `psycopg_pool.AsyncConnectionPool`, of `shardman.AsyncConnection`; see `ConnectionPool`."""

    def __init__(self, conninfo: str = "", **options: Any) -> None:
        reset = options.pop("reset", None)

        async def back(db: AsyncConnection[Any]) -> None:
            await db.rollback()
            if reset is not None:
                await reset(db)

        super().__init__(
            conninfo, **{"connection_class": AsyncConnection, **options, "reset": back}
        )


def _reset(options: dict[str, Any]) -> Any:
    reset = options.pop("reset", None)

    def back(db: Connection[Any]) -> None:
        # psycopg_pool looks at one session, and a transaction may be on others.
        db.rollback()
        if reset is not None:
            reset(db)

    return back
