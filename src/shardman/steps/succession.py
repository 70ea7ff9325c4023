"""Steps of a failover, in the order in which it takes them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import sql

from shardman import names
from shardman.pg import subscriptions
from shardman.steps.base import Connection, Run, step
from shardman.steps.catalog import data_table, is_attached, need_relation
from shardman.steps.locks import Busy, lock_against, patience, rolled_back
from shardman.steps.metadata import reorder, set_stale, unlink
from shardman.tasks import all_of

#: Promotions on one node at once.
SIDE_BY_SIDE = 2


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

    Each in a transaction of its own: one that somebody holds does not keep the others waiting.
    """

    node: int
    parts: list[str]

    async def do(self, run: Run) -> None:
        todo = list(reversed(self.parts))

        async def some() -> None:
            conn, other = await run.extra(self.node), await run.extra(self.node)
            while todo:
                await self._promote(conn, other, todo.pop())

        await all_of(*(some() for _ in self.parts[:SIDE_BY_SIDE]))

    async def _promote(self, conn: Connection, other: Connection, part: str) -> None:
        data = await data_table(conn, part)
        if await is_attached(conn, data):
            return
        await need_relation(conn, data)
        clear = sql.SQL("select shardman.end_stranded(array[{}])").format(sql.Literal(part))
        for timeout_ms, pause in patience():
            try:
                async with rolled_back(conn):
                    await lock_against(conn, other, [part], timeout_ms, self.node, clear)
                    await conn.execute("select shardman.make_writable(%s)", (data,))
                    await conn.execute("select shardman.fence_in(%s)", (part,))
                    await conn.execute("commit")
                return
            except Busy:
                await asyncio.sleep(min(pause, 0.2))

    async def undo(self, run: Run) -> None:
        """A finish step goes only forward."""
