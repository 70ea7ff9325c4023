"""Locks on partitions whose primary's node is dead. Nobody can use such a partition meanwhile, so whoever
stands in the way is ended, and nobody is kept from anything by our standing in the queue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from psycopg import sql

from shardman.pg.connection import Connection
from shardman.steps.base import Run
from shardman.steps.catalog import data_table
from shardman.steps.locks import HELD, Deadline, lock_against, rolled_back
from shardman.tasks import all_of

Work = Callable[[Connection, str], Awaitable[None]]


@dataclass(frozen=True)
class Stage:
    """How one round goes about it.

    Args:
        ms: how long it stands in the queue for one partition.
        ending: the function that ends whoever holds it.
        abreast: partitions at once.
    """

    ms: int
    ending: str
    abreast: int


#: First those who wait for the dead node are ended. Then everybody who holds a partition (an open transaction
#: that has read it, a dump), and we stand in the queue for as long as a session that is just connecting
#: to the dead node can be out of reach: on PostgreSQL 15 and 16 its connect_timeout.
STAGES = (
    Stage(300, "evict_waiting_on_dead", 2),
    Stage(300, "evict_waiting_on_dead", 2),
    Stage(7000, "evict_holders", 16),
)


async def lock_evicting(
    run: Run, node: int, parts: Sequence[str], work: Work, *, data_too: bool = False
) -> list[str]:
    """Locks each partition on a node, does the work, and commits; each in a transaction of its
    own, and what somebody holds does not keep the others waiting.

    Args:
        work: gets the session that holds the lock, and the partition.
        data_too: the data table, which is not attached yet, is locked as well.

    Returns:
        The partitions that could not be locked.
    """
    held = list(parts)
    for each in STAGES:
        held = await _stage(run, node, held, _Job(work, data_too), each)
    return held


@dataclass(frozen=True)
class _Job:
    work: Work
    data_too: bool

    async def tables(self, conn: Connection, part: str) -> list[str]:
        return [part, await data_table(conn, part)] if self.data_too else [part]


async def _stage(run: Run, node: int, parts: list[str], job: _Job, how: Stage) -> list[str]:
    todo, held = list(reversed(parts)), list[str]()

    async def some() -> None:
        async with run.extra_session(node) as conn, run.extra_session(node) as other:
            while todo:
                part = todo.pop()
                try:
                    await _locked(conn, other, node, part, job, how)
                except HELD:
                    held.append(part)

    await all_of(*(some() for _ in parts[: how.abreast]))
    return held


async def _locked(
    conn: Connection, other: Connection, node: int, part: str, job: _Job, how: Stage
) -> None:
    tables = await job.tables(conn, part)
    clear = sql.SQL("select {}({}::text[])").format(
        sql.Identifier("shardman", how.ending), sql.Literal(tables)
    )
    async with rolled_back(conn):
        await lock_against(conn, other, tables, Deadline(how.ms), node, clear)
        await job.work(conn, part)
        await conn.execute("commit")
