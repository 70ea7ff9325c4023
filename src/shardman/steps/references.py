"""Foreign keys from data tables to shared tables come and go in cut-overs: see sql/routines/56_references.sql.

That needs a lock on the copy of the shared table. Whoever writes to it holds it on his own node while he waits
for other writers, and needs it on all nodes behind them: standing in the queue for it we would wait for writers
who wait for us. So we first take the lock by which there is one writer at a time, as a writer does. Then only
those who wait for it on that node itself are in the way. To them we give way at once, and come again soon,
for they are done soon.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import psycopg

from shardman.errors import Temporary, UserError
from shardman.pg.connection import Connection
from shardman.steps.base import Run
from shardman.steps.catalog import value
from shardman.steps.locks import Busy, rolled_back

#: How long a try waits for other writers. Nobody waits for us meanwhile.
WRITERS_MS = "2000ms"
#: How long one gives way and comes again before it is said for whom.
SOON_S = 5.0
PAUSE_S = 0.007


async def referred_to(run: Run, parts: Sequence[str]) -> list[str]:
    """The shared tables that the foreign keys of partitions' tables refer to."""
    found: list[str] = await value(
        await run.node(0),
        "select coalesce(array_agg(distinct f ->> 'to' order by f ->> 'to'), '{}')"
        " from unnest(%s::text[]) as p"
        " cross join jsonb_array_elements(shardman.table_definition(p) -> 'foreign_keys') as f"
        " where not f ? 'to_columns'",
        list(parts),
    )
    return found


@asynccontextmanager
async def held(
    run: Run, relations: Iterable[str], where: Sequence[Connection]
) -> AsyncIterator[None]:
    """Keeps others from writing to shared tables. The sessions `where` have a transaction open then that
    keeps them from the copies there until it ends.

    Raises:
        Busy: somebody is always writing.
    """
    tables = sorted(set(relations))
    until = time.monotonic() + SOON_S
    async with AsyncExitStack() as stack:
        while tables:
            try:
                async with AsyncExitStack() as attempt:
                    await _take(run, attempt, tables, where)
                    stack.push_async_exit(attempt.pop_all())
                break
            except psycopg.errors.LockNotAvailable:
                if time.monotonic() > until:
                    raise Busy(f"writers to {', '.join(tables)}") from None
            await asyncio.sleep(PAUSE_S)
        yield


async def _take(
    run: Run, stack: AsyncExitStack, tables: Sequence[str], where: Sequence[Connection]
) -> None:
    lord = await run.node(0)
    for relation in tables:
        first = await value(
            lord, "select min(node) from shardman.shared_copies where relation = %s", relation
        )
        if first is not None:
            await stack.enter_async_context(_alone(run, relation, first))
    for conn in where:
        await stack.enter_async_context(rolled_back(conn))
        await conn.execute("begin")
        for relation in tables:
            await conn.execute("select shardman.hold_referred(%s)", (relation,))


@asynccontextmanager
async def _alone(run: Run, relation: str, node: int) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        try:
            conn = await stack.enter_async_context(run.extra_session(node))
        except (psycopg.OperationalError, UserError, Temporary):
            # Without that node nobody can write to it.
            yield
            return
        async with rolled_back(conn):
            await conn.execute("begin")
            await conn.execute("select set_config('lock_timeout', %s, true)", (WRITERS_MS,))
            try:
                await conn.execute("select shardman.take_shared_lock(%s, 'turn')", (relation,))
            except psycopg.errors.SerializationFailure:
                raise Busy(f"{relation}, which is just being shared or unshared") from None
            try:
                yield
            finally:
                if not conn.closed and not conn.broken:
                    await asyncio.shield(conn.rollback())
