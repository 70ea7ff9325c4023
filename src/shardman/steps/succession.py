"""Steps of a failover, in the order in which it takes them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from shardman import names
from shardman.errors import Temporary
from shardman.pg import subscriptions
from shardman.steps.base import Connection, Run, step
from shardman.steps.catalog import data_table, need_relation, value
from shardman.steps.fence import raise_first
from shardman.steps.metadata import reorder, set_stale, unlink
from shardman.steps.rounds import in_rounds


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
        async with run.turn(f"channel {self.of} {self.node}"):
            await subscriptions.disable(conn, self._name(run))

    async def undo(self, run: Run) -> None:
        conn, lord = await run.node(self.node), await run.node(0)
        again = "select shardman.cut_again(%s, %s, %s)"
        async with run.turn(f"channel {self.of} {self.node}"):
            if not await value(lord, again, self.of, self.node, run.cmd_id):
                await subscriptions.enable(conn, self._name(run))

    def _name(self, run: Run) -> str:
        return names.channel(run.cluster_id, self.of, self.node)


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
    """Puts replicas into the slots of their partitions, where the routes to the dead node were; on all
    nodes at once.

    Args:
        heirs: the node of each partition's new primary.
    """

    parts: list[str]
    heirs: list[int]

    async def do(self, run: Run) -> None:
        ends = await asyncio.gather(
            *(self._on(run, node) for node in sorted(set(self.heirs))), return_exceptions=True
        )
        raise_first(ends)

    async def _on(self, run: Run, node: int) -> None:
        # Somebody may be reading the replica by its own name.
        ours = await self._ours(run, node)
        if held := await in_rounds(run, node, ours, self._promote, data_too=True):
            raise Temporary(f"{', '.join(held)} cannot be locked on node {node}")

    async def _ours(self, run: Run, node: int) -> list[str]:
        """Those that a later command has not taken elsewhere and that are not in their slots yet, in the
        order of the plan."""
        mine = [p for p, heir in zip(self.parts, self.heirs, strict=True) if heir == node]
        found = await value(
            await run.node(0),
            "select coalesce(array_agg(part_name), '{}') from shardman.partitions"
            " where part_name = any (%s) and owner = %s and prv is null",
            mine,
            node,
        )
        waiting = await value(
            await run.node(node),
            "select coalesce(array_agg(p), '{}') from unnest(%s::text[]) as p"
            " where not shardman.is_in_use(shardman.data_table(p))",
            found,
        )
        return [part for part in mine if part in set(waiting)]

    async def _promote(self, conn: Connection, part: str) -> None:
        data = await data_table(conn, part)
        await need_relation(conn, data)
        await conn.execute("select shardman.make_writable(%s)", (data,))
        await conn.execute("select shardman.fence_in(%s)", (part,))

    async def undo(self, run: Run) -> None:
        """A finish step goes only forward."""
