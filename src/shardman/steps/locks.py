"""Locks on tables that the application uses.

What waits for a lock makes everybody behind it wait too. So ours are asked for with a short
`lock_timeout`; a try that does not get them gives way, says for whom it waits, and comes again
(guarantee 4).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import psycopg
from psycopg import sql

from shardman.steps.base import Connection, Run
from shardman.steps.catalog import value

#: lock_timeout of one try after the other, in ms. Short first: most transactions are.
LOCK_TIMEOUTS_MS = (30, 60, 120, 240, 400)


class Busy(Exception):
    """A lock could not be had in time, or the stream did not empty; whom we wait for."""


def patience() -> Iterator[tuple[int, float]]:
    """lock_timeout in ms and pause in s of one try after the other."""
    pauses = itertools.chain((0.05, 0.1, 0.2, 0.5, 1.0), itertools.repeat(2.0))
    timeouts = itertools.chain(LOCK_TIMEOUTS_MS, itertools.repeat(LOCK_TIMEOUTS_MS[-1]))
    return zip(timeouts, pauses, strict=False)


@asynccontextmanager
async def rolled_back(conn: Connection) -> AsyncIterator[None]:
    """Ends whatever transaction is open on a connection when the block fails."""
    try:
        yield
    except BaseException:
        if not conn.closed and not conn.broken:
            await asyncio.shield(conn.rollback())
        raise


async def begin_locked(
    conn: Connection, tables: list[str], mode: str, timeout_ms: int, node: int
) -> None:
    """Opens a transaction that holds locks on tables, taken in this order.

    Args:
        timeout_ms: how long each lock may be waited for.

    Raises:
        Busy: with whom we waited for; the transaction is rolled back.
    """
    await conn.execute("begin")
    try:
        await conn.execute("select shardman.lock_tables(%s, %s, %s)", (tables, mode, timeout_ms))
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
        await conn.execute("rollback")
        whom = await value(conn, "select shardman.holders(%s)", tables)
        raise Busy(f"{whom} on node {node}" if whom else f"a lock on node {node}") from None


async def lock_against(
    conn: Connection,
    other: Connection,
    tables: list[str],
    timeout_ms: int,
    node: int,
    clear: sql.SQL | sql.Composed,
) -> None:
    """As `begin_locked`, while those who hold the locks and wait for a dead node are ended.

    They are ended while we stand in the queue: whoever comes again then stands behind us.

    Args:
        other: a second session on the node.
        clear: the statement that ends them.

    Raises:
        Busy: the locks could not be had.
    """

    async def clearing() -> None:
        while True:
            await asyncio.sleep(0.03)
            await other.execute(clear)

    task = asyncio.create_task(clearing())
    try:
        await begin_locked(conn, tables, "access exclusive", timeout_ms, node)
    finally:
        task.cancel()
        await asyncio.wait({task})


async def execute_patiently(
    run: Run, conn: Connection, node: int, table: str, statement: sql.SQL | sql.Composed
) -> None:
    """Runs one statement that needs a table for itself, in a transaction of its own.

    Args:
        table: as the metadata writes it; locked in ACCESS EXCLUSIVE mode before.
    """
    for timeout_ms, pause in patience():
        try:
            async with rolled_back(conn):
                await begin_locked(conn, [table], "access exclusive", timeout_ms, node)
                await conn.execute(statement)
                await conn.execute("commit")
            break
        except Busy as busy:
            await run.waits_for(str(busy))
            await asyncio.sleep(pause)
    await run.waits_for(None)
