"""Steps of a failover, in the order in which it takes them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import sql

from shardman import names
from shardman.errors import Temporary
from shardman.pg import subscriptions
from shardman.steps.base import Connection, Run, step
from shardman.steps.catalog import data_table, is_attached, need_relation, value
from shardman.steps.locks import LIMIT_S, Busy, Deadline, lock_against, rolled_back
from shardman.steps.metadata import reorder, set_stale, unlink
from shardman.tasks import all_of

#: Promotions on one node at once.
SIDE_BY_SIDE = 2
#: How long one of them stands in the queue for a slot, and the pause after it.
TRY_MS = 200
PAUSE_S = 0.05
#: How long transactions that hold a slot, but do not wait for the dead node, may go on.
PATIENCE_S = 1.0


@step("cut_channel")
@dataclass(frozen=True)
class CutChannel:
    """Ends the stream from a node, whether that node runs or not, without dropping anything.

    From here on the node cannot acknowledge a write to a partition with a replica here: its commits
    wait for a subscriber that does not come.
    """

    node: int
    of: int

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        name = names.channel(run.cluster_id, self.of, self.node)
        await subscriptions.disable(conn, name)

    async def undo(self, run: Run) -> None:
        conn = await run.node(self.node)
        name = names.channel(run.cluster_id, self.of, self.node)
        await subscriptions.enable(conn, name)


@step("succeed")
@dataclass(frozen=True)
class Succeed:
    """The lists of copies without the dead node as a primary.

    Args:
        promoted: the copies of each partition that goes on elsewhere, the new primary first.
        stale: partitions and nodes of copies that follow nobody from now on.
        dropped: partitions and nodes of replicas that leave the lists.
    """

    dead: int
    promoted: Mapping[str, list[int]]
    stale: list[list[str | int]]
    dropped: list[list[str | int]]

    async def do(self, run: Run) -> None:
        conn = await run.node(0)
        for part, node in self.dropped:
            await unlink(conn, str(part), int(node))
        for part, order in self.promoted.items():
            await conn.execute(
                "delete from shardman.partitions where part_name = %s and owner = %s",
                (part, self.dead),
            )
            await reorder(conn, part, order)
            await set_stale(conn, part, order[0], stale=False)
        for part, node in self.stale:
            await set_stale(conn, str(part), int(node), stale=True)

    async def undo(self, run: Run) -> None:
        """The switch is the point of no return."""


@step("promote")
@dataclass(frozen=True)
class Promote:
    """Puts replicas into the slots of their partitions, where the routes to the dead node were.

    Each in a transaction of its own, and one that somebody holds goes to the end of the queue: it does
    not keep the others waiting. Whoever waits for the dead node is ended at once; whoever else holds a
    slot (an open transaction that has read it, a dump) after PATIENCE_S, for nobody can write meanwhile.
    """

    node: int
    parts: list[str]

    async def do(self, run: Run) -> None:
        todo = deque(await self._ours(run))
        begun = time.monotonic()

        async def some() -> None:
            conn, other = await run.extra(self.node), await run.extra(self.node)
            while todo:
                part, waited = todo.popleft(), time.monotonic() - begun
                try:
                    await self._promote(conn, other, part, waited)
                except Busy as busy:
                    todo.append(part)
                    if waited > PATIENCE_S + LIMIT_S:
                        raise Temporary(f"{part} is held by {busy}") from None
                    await asyncio.sleep(PAUSE_S)

        await all_of(*(some() for _ in list(todo)[:SIDE_BY_SIDE]))

    async def _ours(self, run: Run) -> list[str]:
        """Those that a later command has not taken elsewhere, in the order of the plan."""
        found = await value(
            await run.node(0),
            "select coalesce(array_agg(part_name), '{}') from shardman.partitions"
            " where part_name = any (%s) and owner = %s and prv is null",
            self.parts,
            self.node,
        )
        return [part for part in self.parts if part in set(found)]

    async def _promote(self, conn: Connection, other: Connection, part: str, waited: float) -> None:
        data = await data_table(conn, part)
        if await is_attached(conn, data):
            return
        await need_relation(conn, data)
        ending = "end_stranded" if waited < PATIENCE_S else "end_holders"
        clear = sql.SQL("select {}(array[{}])").format(
            sql.Identifier("shardman", ending), sql.Literal(part)
        )
        async with rolled_back(conn):
            await lock_against(conn, other, [part], Deadline(TRY_MS), self.node, clear)
            await conn.execute("select shardman.make_writable(%s)", (data,))
            await conn.execute("select shardman.fence_in(%s)", (part,))
            await conn.execute("commit")

    async def undo(self, run: Run) -> None:
        """A finish step goes only forward."""
