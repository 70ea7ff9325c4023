"""All partitions come to one node, and their replicas go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shardman.commands.base import Command
from shardman.commands.move_part import MovePart
from shardman.commands.rm_replica import RmReplica
from shardman.commands.switch_primary import SwitchPrimary
from shardman.commands.unshard_table import UnshardTable
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster
from shardman.steps.base import Made, PrepareStep, Run, Scope, UndoableStep, step


def to_gather(cluster: Cluster, relation: str, node: int) -> Iterator[Command]:
    """What brings the primaries of a table to a node."""
    for part, primary in sorted(cluster.primaries.items()):
        if primary.relation != relation or primary.owner == node:
            continue
        if node in cluster.replicas_of(part):
            yield SwitchPrimary(part, node)
        elif any(c.owner == node for c in cluster.copies_of(part)):
            yield RmReplica(part, node)
            yield MovePart(part, node)
        else:
            yield MovePart(part, node)


async def _child(run: Run, command: Command, what: str) -> None:
    status, error = await run.child(command)
    if status != "success":
        raise UserError(
            f"{what}: {error or status}",
            "See that command, then submit this one again",
            code=Code.TABLE_UNSUITABLE,
        )


@step("gather_partitions")
@dataclass(frozen=True)
class GatherPartitions(PrepareStep):
    """Moves all partitions to one node, each by a command of its own. Those that were moved stay there when the
    table stays sharded after all."""

    leaves = "partitions on that node: it is a sharded table as before"

    node: int
    relation: str

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        facts = await run.facts(UnshardTable(self.relation, self.node))
        todo = list(to_gather(facts.cluster, self.relation, self.node))
        for done, command in enumerate(todo):
            await run.waits_for(f"moves: {done} of {len(todo)} done")
            await _child(run, command, f"not all partitions could be moved to node {self.node}")
        await run.waits_for(None)


@step("release_replicas")
@dataclass(frozen=True)
class ReleaseReplicas(UndoableStep):
    """Takes all replicas of a table away, just before the cut-over: until then they have every row.

    Args:
        replevel: how many it is to have if it stays sharded: then they are made again.
    """

    leaves = "the table with fewer replicas; they are made again when the command is undone"

    relation: str
    replevel: int

    def scope(self) -> Scope:
        return Scope()

    def makes(self) -> Made:
        return Made(f"{self.relation} without replicas")

    async def do(self, run: Run) -> None:
        conn = await run.node(0)
        cur = await conn.execute(
            "select part_name, owner from shardman.partitions"
            " where relation = %s and prv is not null order by 1, 2",
            (self.relation,),
        )
        replicas = await cur.fetchall()
        # Otherwise they would be made again.
        await self._level(run, 0)
        for part, node in replicas:
            await _child(run, RmReplica(part, node), f"the replica of {part} stays")

    async def undo(self, run: Run) -> None:
        await self._level(run, self.replevel)

    async def _level(self, run: Run, replevel: int) -> None:
        conn = await run.node(0)
        await conn.execute(
            "update shardman.tables set replevel = %s where relation = %s",
            (replevel, self.relation),
        )
