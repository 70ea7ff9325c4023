"""Locks on partitions whose primary's node is dead. Nobody can use such a partition meanwhile, so whoever
stands in the way is ended, and nobody is kept from anything by our standing in the queue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from psycopg import sql

from shardman.steps.base import Connection, Run
from shardman.steps.locks import HELD, Deadline, lock_against, rolled_back
from shardman.tasks import all_of

Work = Callable[[Connection, str], Awaitable[None]]


@dataclass(frozen=True)
class Round:
    """How one round goes about it.

    Args:
        ms: how long it stands in the queue for one partition.
        ending: the function that ends whoever holds it.
        abreast: partitions at once.
    """

    ms: int
    ending: str
    abreast: int


#: First those who wait for the dead node are ended. Then everybody who holds a slot (an open transaction
#: that has read it, a dump), and we stand in the queue for as long as a session that is just connecting
#: to the dead node can be out of reach: on PostgreSQL 15 and 16 its connect_timeout.
ROUNDS = (
    Round(300, "end_stranded", 2),
    Round(300, "end_stranded", 2),
    Round(7000, "end_holders", 16),
)


async def in_rounds(run: Run, node: int, parts: Sequence[str], work: Work) -> list[str]:
    """Locks the slot of each partition on a node, does the work, and commits; each in a transaction of its
    own, and what somebody holds does not keep the others waiting.

    Args:
        work: gets the session that holds the lock, and the partition.

    Returns:
        The partitions that could not be locked.
    """
    held = list(parts)
    for each in ROUNDS:
        held = await _round(run, node, held, work, each)
    return held


async def _round(run: Run, node: int, parts: list[str], work: Work, how: Round) -> list[str]:
    todo, held = list(reversed(parts)), list[str]()

    async def some() -> None:
        conn, other = await run.extra(node), await run.extra(node)
        while todo:
            part = todo.pop()
            try:
                await _locked(conn, other, node, part, work, how)
            except HELD:
                held.append(part)
        await conn.close()
        await other.close()

    await all_of(*(some() for _ in parts[: how.abreast]))
    return held


async def _locked(
    conn: Connection, other: Connection, node: int, part: str, work: Work, how: Round
) -> None:
    clear = sql.SQL("select {}(array[{}])").format(
        sql.Identifier("shardman", how.ending), sql.Literal(part)
    )
    async with rolled_back(conn):
        await lock_against(conn, other, [part], Deadline(how.ms), node, clear)
        await work(conn, part)
        await conn.execute("commit")
