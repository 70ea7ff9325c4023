"""The steps by which a sharded table comes into a group of colocated ones, and leaves it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from shardman.commands.create_replica import CreateReplica
from shardman.commands.rm_replica import RmReplica
from shardman.errors import Code, Temporary, UserError
from shardman.model.cluster import Cluster
from shardman.model.colocation import Gathering, gathering
from shardman.model.replicas import Change
from shardman.pg.metadata import read_cluster
from shardman.steps.base import FinishStep, PrepareStep, Run, Scope, SwitchStep, step
from shardman.steps.catalog import data_table, value
from shardman.steps.locks import Deadline, begin_locked, patiently, rolled_back
from shardman.steps.moves import run_moves


@step("join_group")
@dataclass(frozen=True)
class JoinGroup(FinishStep):
    """Lays the copies of a new table where those of another one are, each by a command of its own, and then
    records that their partitions go together. The tables are colocated from that instant on:
    who looks before sees two tables that have nothing to do with each other.

    It names the table's node, so that it waits for whatever is left to do there.
    """

    leaves = "a sharded table, some of its partitions elsewhere, that is not colocated yet"

    node: int
    relation: str
    colocate_with: str

    def scope(self) -> Scope:
        return Scope.of([self.node])

    async def do(self, run: Run) -> None:
        cluster = await read_cluster(await run.node(0))
        if self.colocate_with in cluster.group(self.relation):
            return
        if not {self.relation, self.colocate_with} <= cluster.tables.keys():
            run.say(
                f"{self.relation} is not colocated: {self.colocate_with} is not sharded any more."
            )
            return
        counts = [cluster.tables[t].partitions_count for t in (self.relation, self.colocate_with)]
        if len(set(counts)) > 1:
            run.say(
                f"{self.relation} is not colocated: it has {counts[0]} partitions,"
                f" {self.colocate_with} {counts[1]} by now."
            )
            return
        todo = gathering(cluster, self.relation, self.colocate_with)
        if failed := await _lay(run, todo):
            raise Temporary("; ".join(failed[:3]), code=Code.BUSY)
        conn = await run.node(0)
        async with conn.transaction():
            joined = await _record(run, self.relation, self.colocate_with)
        if not joined:
            where = todo.waits_for
            raise Temporary(
                f"the replica of {where[0]} on node {where[1]} does not follow"
                if where
                else f"{self.colocate_with} is being moved",
                code=Code.BUSY,
            )


@step("gather_copies")
@dataclass(frozen=True)
class GatherCopies(PrepareStep):
    """As `JoinGroup`, of a table that is in use: what has been laid there stays when the rest fails, and the
    command that is submitted again has only that to do."""

    leaves = "copies that were laid there already"

    relation: str
    colocate_with: str

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        todo = gathering(await read_cluster(await run.node(0)), self.relation, self.colocate_with)
        if failed := await _lay(run, todo):
            raise UserError(
                "; ".join(failed[:3]),
                "See those commands, then submit this one again: it goes on where it stopped",
                code=await _code_of_part(run),
            )
        run.figures.moved = len(todo.moves) + len(todo.changes)


@step("record_colocation")
@dataclass(frozen=True)
class RecordColocation(SwitchStep):
    """The tables are colocated from this instant on."""

    relation: str
    colocate_with: str

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        if not await _record(run, self.relation, self.colocate_with):
            raise Temporary(
                f"the copies of {self.relation} do not lie as those of {self.colocate_with} do by now",
                code=Code.CHANGED_MEANWHILE,
            )


@step("record_alone")
@dataclass(frozen=True)
class RecordAlone(SwitchStep):
    """A table is colocated with no other one from this instant on."""

    relation: str

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        alone = "select shardman.leave_group(%s)"
        if not await value(await run.node(0), alone, self.relation):
            raise Temporary(
                f"a foreign key leads from {self.relation} to a table of its group, or to it, by now",
                code=Code.CHANGED_MEANWHILE,
            )


async def _record(run: Run, relation: str, other: str) -> bool:
    """Whether they are colocated now; in the transaction of the caller, in the lord's database."""
    conn = await run.node(0)
    # Nobody moves a partition between the look and the record.
    await conn.execute("lock table shardman.partitions in share row exclusive mode")
    join = "select shardman.join_group(%s, %s, %s)"
    return bool(await value(conn, join, relation, other, run.cmd_id))


async def _lay(run: Run, todo: Gathering) -> list[str]:
    """Moves copies, makes and drops replicas; what went wrong."""
    failed = [
        f"{e.move.part_name} stays on node {e.move.src}: {e.error or e.status}"
        for e in await run_moves(run, list(todo.moves))
        if e.failed
    ]
    # One after the other: they share channels. A replica goes when the one in its place is there.
    for change in todo.changes:
        if failed:
            break
        if (wrong := await _change(run, change)) is not None:
            failed.append(wrong)
    await run.waits_for(None)
    return failed


async def _code_of_part(run: Run) -> Code:
    """The code of the part that has failed last."""
    query = (
        "select error_code from shardman.cmd_log where parent = %s and error_code is not null"
        " order by id desc limit 1"
    )
    return Code(await value(await run.node(0), query, run.cmd_id) or Code.BUSY)


async def _change(run: Run, change: Change) -> str | None:
    """Makes or drops a replica; what went wrong."""
    verb = CreateReplica if change.add else RmReplica
    status, error = await run.child(verb(change.part_name, change.node))
    return (
        None
        if status == "success"
        else f"{change.part_name} on node {change.node}: {error or status}"
    )


@step("leave_group")
@dataclass(frozen=True)
class LeaveGroup(PrepareStep):
    """Takes a table that is about to go out of its group: its partitions go alone from then on. First its
    foreign keys to the others, on all nodes: they would lead to data tables that go elsewhere. That stays
    done when the table is not dropped after all.
    """

    leaves = "the table without foreign keys to those that it was colocated with, or not colocated any more"

    relation: str

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        lord = await run.node(0)
        cluster = await read_cluster(lord)
        others = [t for t in cluster.group(self.relation) if t != self.relation]
        if others and self._referred(cluster, others):
            raise UserError(
                f"{', '.join(self._referred(cluster, others))} refers to {self.relation}",
                "Drop the foreign key, or that table, first",
                code=Code.TABLE_UNSUITABLE,
            )
        # Otherwise nodes would make them again.
        await lord.execute("select shardman.forget_references(%s, %s)", (self.relation, others))
        for part, primary in sorted(cluster.primaries.items()):
            if primary.relation == self.relation:
                await self._drop_references(run, part, primary.owner, others)
        await lord.execute(
            "update shardman.tables set colocation = null where relation = %s", (self.relation,)
        )

    def _referred(self, cluster: Cluster, others: Iterable[str]) -> list[str]:
        return [t for t in others if self.relation in cluster.tables[t].inside]

    async def _drop_references(self, run: Run, part: str, node: int, others: list[str]) -> None:
        conn = await run.node(node)
        data = await data_table(conn, part)

        async def attempt(deadline: Deadline) -> None:
            async with rolled_back(conn):
                await begin_locked(conn, [data], "access exclusive", deadline, node)
                await conn.execute("select shardman.drop_inside_references(%s, %s)", (part, others))
                await conn.execute("commit")

        if await value(conn, "select shardman.refers_inside(%s, %s)", part, others):
            await patiently(run, attempt)
