"""The steps that drop a sharded table: its replicas first, then, once the metadata do not name it any more, the
table on each node."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from shardman.commands.rm_replica import RmReplica
from shardman.errors import Code, Temporary, UserError
from shardman.steps.base import FinishStep, PrepareStep, Run, Scope, step
from shardman.steps.convergence import await_metadata

#: How long a node may take to hear that the table is gone. It would make the table anew otherwise.
HEAR_S = 10.0
LOCK_S = 2


@step("take_replicas_away")
@dataclass(frozen=True)
class TakeReplicasAway(PrepareStep):
    """Takes all replicas of a table away, each by a command of its own. What is taken away is not given back
    when the table is not dropped after all: its level is 0 then."""

    leaves = "the table without replicas, or with fewer"

    relation: str

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        conn = await run.node(0)
        # Otherwise they would be made again.
        await conn.execute(
            "update shardman.tables set replevel = 0 where relation = %s", (self.relation,)
        )
        cur = await conn.execute(
            "select part_name, owner from shardman.partitions"
            " where relation = %s and prv is not null order by 1, 2",
            (self.relation,),
        )
        for part, node in await cur.fetchall():
            status, error = await run.child(RmReplica(part, node))
            if status != "success":
                raise UserError(
                    f"the replica of {part} on node {node} could not be dropped: {error or status}",
                    "See that command, then submit this one again",
                    code=Code.TABLE_UNSUITABLE,
                )


@step("drop_asides")
@dataclass(frozen=True)
class DropAsides(FinishStep):
    """Drops tables that failovers have set aside on a node, which held rows of the table that is dropped."""

    leaves = "all of them, or none"

    node: int
    names: tuple[str, ...]

    def scope(self) -> Scope:
        return Scope.of([self.node])

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        await conn.execute("select shardman.drop_asides(%s)", (list(self.names),))


@step("drop_sharded")
@dataclass(frozen=True)
class DropSharded(FinishStep):
    """Drops the table with its partitions, their data tables and routes, on one node."""

    leaves = "the table, or all that it had on this node, with its rows"

    node: int
    relation: str
    #: What it is called since DROP TABLE has put it away; where it was not, in a crash, it is called as ever.
    called: str | None = None

    def scope(self) -> Scope:
        return Scope.of([self.node])

    async def do(self, run: Run) -> None:
        if not await await_metadata(run, self.node, HEAR_S):
            raise Temporary(f"node {self.node} has not heard of it yet", code=Code.NODE_BEHIND)
        conn = await run.node(self.node)
        try:
            async with conn.transaction():
                await conn.execute(f"set local lock_timeout = '{LOCK_S}s'")
                await conn.execute(
                    "select shardman.drop_sharded(%s)", (self.called or self.relation,)
                )
        except psycopg.errors.LockNotAvailable as error:
            raise Temporary(
                f"{self.relation} is in use on node {self.node}", code=Code.LOCK_TIMEOUT
            ) from error
