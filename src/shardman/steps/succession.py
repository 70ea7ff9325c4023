"""Steps of a failover, in the order in which it takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shardman import names
from shardman.errors import Code, Temporary
from shardman.pg import subscriptions
from shardman.pg.connection import Connection
from shardman.steps.base import FinishStep, Made, Run, Scope, SwitchStep, UndoableStep, step
from shardman.steps.catalog import data_table, need_relation, value
from shardman.steps.eviction import lock_evicting
from shardman.steps.metadata.copies import unlink
from shardman.steps.metadata.order import reorder
from shardman.steps.metadata.stale import set_stale
from shardman.steps.state import ChannelChange, State
from shardman.tasks import each_of


@step("cut_channel")
@dataclass(frozen=True)
class CutChannel(UndoableStep):
    """Closes the channel from a node, whether that node runs or not, without dropping anything.

    From here on the node cannot acknowledge a write to a partition with a replica here: its commits
    wait for a subscriber that does not come.
    """

    waits = "statements on its partitions; commits on that node, should it run"
    waits_until = "promote"

    node: int
    of: int

    def scope(self) -> Scope:
        return Scope.of([self.node])

    def makes(self) -> Made:
        return Made(f"the cut of the channel from node {self.of} to node {self.node}", shared=True)

    def state(self) -> Sequence[State]:
        return (ChannelChange(self.of, self.node, "cut"),)

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        async with run.named_lock(f"channel {self.of} {self.node}"):
            await subscriptions.disable(conn, self._name(run))

    async def undo(self, run: Run) -> None:
        conn, lord = await run.node(self.node), await run.node(0)
        again = "select shardman.cut_again(%s, %s, %s)"
        async with run.named_lock(f"channel {self.of} {self.node}"):
            if not await value(lord, again, self.of, self.node, run.cmd_id):
                await subscriptions.enable(conn, self._name(run))

    def _name(self, run: Run) -> str:
        return names.channel(run.cluster_id, self.of, self.node)


@step("succeed")
@dataclass(frozen=True)
class Succeed(SwitchStep):
    """The succession of each partition without the dead node as its primary.

    Args:
        promoted: the copies of each partition that goes on elsewhere, the new primary first.
        stale: partitions and nodes of copies that follow nobody from now on.
        dropped: partitions and nodes of replicas that leave it.
    """

    dead: int
    promoted: Mapping[str, list[int]]
    stale: list[list[str | int]]
    dropped: list[list[str | int]]

    def scope(self) -> Scope:
        return Scope.of(parts=self.promoted)

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
        # Its absence was planned until now. Where replicas on it follow, they have to catch up first.
        await conn.execute(
            "update shardman.nodes n set away_until = null where n.id = %s and not exists (select from"
            " shardman.partitions p where p.owner = n.id and p.prv is not null and p.stale_since is null)",
            (self.dead,),
        )


@step("promote")
@dataclass(frozen=True)
class Promote(FinishStep):
    """Puts replicas into their partitions, where the routes to the dead node were; on all
    nodes at once.

    Args:
        heirs: the node of each partition's new primary.
    """

    leaves = "partitions with routes to the node that was replaced"

    each_by_itself = True

    parts: list[str]
    heirs: list[int]

    def scope(self) -> Scope:
        return Scope.of(self.heirs, self.parts)

    async def do(self, run: Run) -> None:
        await each_of(*(self._on(run, node) for node in sorted(set(self.heirs))))

    async def _on(self, run: Run, node: int) -> None:
        # Somebody may be reading the replica by its own name.
        ours = await self._ours(run, node)
        if held := await lock_evicting(run, node, ours, self._promote, data_too=True):
            raise Temporary(
                f"{', '.join(held)} cannot be locked on node {node}", code=Code.LOCK_TIMEOUT
            )

    async def _ours(self, run: Run, node: int) -> list[str]:
        """Those that a later command has not taken elsewhere and that are not attached yet, in the
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
        # What cannot be had at once of its foreign keys is made later: it must not keep the partition away.
        await conn.execute("select set_config('shardman.references_later', 'on', true)")
        await conn.execute("select shardman.cut_over_in(%s)", (part,))
