"""The step by which those who use a table reach other nodes before its rows are there."""

from __future__ import annotations

from dataclasses import dataclass

from shardman.pg.connection import Connection
from shardman.steps.base import Made, Run, Scope, UndoableStep, step
from shardman.steps.catalog import value
from shardman.tasks import all_of


@step("give_ways")
@dataclass(frozen=True)
class GiveWays(UndoableStep):
    """Roles that may use a table of one node get what they reach other nodes by, on all of them. The reconciler
    would give it a second or two behind the switch, and they would be without meanwhile."""

    nodes: list[int]
    source: int
    relation: str

    def scope(self) -> Scope:
        return Scope.of([*self.nodes, self.source])

    def makes(self) -> Made:
        return Made(f"ways to other nodes for those who use {self.relation}")

    async def do(self, run: Run) -> None:
        roles = await value(
            await run.node(self.source), "select shardman.users_of(%s)", self.relation
        )
        if not roles:
            return

        async def give(conn: Connection) -> None:
            async with conn.transaction():
                await conn.execute("set local lock_timeout = '5s'")
                await conn.execute("select shardman.take_reconcile_lock()")
                await conn.execute("select shardman.expect_users(%s, %s)", (self.relation, roles))
                # What cannot be made is a problem of the node's, which its next reconciliation records.
                await conn.execute("select shardman.mend_nodes(), shardman.let_clients_in()")

        conns = [await run.node(n) for n in {*self.nodes, self.source}]
        await all_of(*map(give, conns))

    async def undo(self, run: Run) -> None:
        for node in {*self.nodes, self.source}:
            conn = await run.node(node)
            await conn.execute("select shardman.expect_users(%s, null)", (self.relation,))
