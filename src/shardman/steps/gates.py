"""The gates of all nodes, closed: an instant at which no transaction of a client over several nodes is half
done.

Each such transaction locks `shardman.commit_gate` on its first node until it is decided. Here that lock is
taken on all nodes, so that none begins to be decided, and those that are decided come to their end on the
other nodes (docs/decisions/0052-one-picture-of-all-nodes.md).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

import psycopg
from psycopg import errors

from shardman.errors import Code, UserError
from shardman.pg.connection import Connection
from shardman.pg.wording import plain
from shardman.sql.loader import queries

#: How long clients wait at most before what they wait for is given up.
PATIENCE_S = 5.0
#: The shardlord says so often that it is there; where it hangs, the gates open by themselves a little later.
ALIVE_EVERY_S = 1.0
_UNHEARD_S = 10.0
_PAUSE_S = 0.01


@asynccontextmanager
async def closed(sessions: Mapping[int, Connection]) -> AsyncIterator[None]:
    """Closes the gates, in one session for each node, in no transaction; they are opened behind the block.

    Raises:
        UserError: somebody who commits came to no end; or a gate was opened before the end of the block, so
            that what was done in it is worth nothing.
    """
    until = time.monotonic() + PATIENCE_S
    try:
        for node, session in sessions.items():
            with _of(node):
                await _close(node, session, until)
        for node, session in sessions.items():
            with _of(node):
                await _wait_for_parts(node, session, until)
        yield
        for node, session in sessions.items():
            with _of(node):
                await session.execute("commit")
    finally:
        for session in sessions.values():
            await _open(session)


async def stay(sessions: Mapping[int, Connection]) -> None:
    """Keeps them closed for a while longer.

    Raises:
        UserError: one was opened.
    """
    for node, session in sessions.items():
        with _of(node):
            await session.execute("select")


async def _close(node: int, session: Connection, until: float) -> None:
    left = max(1, round((until - time.monotonic()) * 1000))
    await session.execute("begin")
    await session.execute(
        queries("snapshots")["bounds"], (f"{left}ms", f"{round(_UNHEARD_S * 1000)}ms")
    )
    try:
        await session.execute(queries("snapshots")["hold"])
    except errors.LockNotAvailable:
        await session.execute("rollback")
        rows = await (await session.execute(queries("snapshots")["committing"])).fetchall()
        raise UserError(
            f"somebody who commits on node {node} came to no end: {rows[0][0] or 'gone by now'}",
            "Try again; a session that stays is ended there with pg_terminate_backend",
            code=Code.LOCK_TIMEOUT,
        ) from None


async def _open(session: Connection) -> None:
    """Whatever has become of it: one that is left in a transaction is not given back."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            await session.execute("rollback")
    except (psycopg.Error, TimeoutError):
        await session.close()


async def _wait_for_parts(node: int, session: Connection, until: float) -> None:
    """What is prepared here is decided: its first node's gate is closed."""
    while rows := await (await session.execute(queries("snapshots")["under_way"])).fetchall():
        if time.monotonic() > until:
            raise UserError(
                f"a transaction over several nodes came to no end on node {node}: {rows[0][0]}",
                "See shardman status, and try again",
                code=Code.BUSY,
            )
        await asyncio.sleep(_PAUSE_S)


@contextmanager
def _of(node: int) -> Iterator[None]:
    """Puts a server's error into words, with the node."""
    try:
        yield
    except (psycopg.OperationalError, errors.IdleInTransactionSessionTimeout) as error:
        raise UserError(
            f"node {node} cannot be reached: {plain(error)}",
            "Try again when it is there",
            code=Code.NODE_UNREACHABLE,
        ) from None
