"""The step that installs the schema on a new node."""

from __future__ import annotations

from dataclasses import dataclass

from shardman.errors import Code, UserError
from shardman.pg.connection import Connection
from shardman.pg.schema import install
from shardman.steps.base import Made, Run, Scope, UndoableStep, step
from shardman.steps.catalog import value
from shardman.steps.locks import LIMIT_S
from shardman.steps.nodes.clearing import forget


@step("node_schema")
@dataclass(frozen=True)
class NodeSchema(UndoableStep):
    """The schema, and who the node is."""

    node: int

    def scope(self) -> Scope:
        return Scope.of([self.node])

    def makes(self) -> Made:
        # An attempt that failed leaves its number to the next one.
        return Made(f"the schema shardman on node {self.node}", shared=True)

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        async with conn.transaction():
            await install(conn)
            await conn.execute(
                "update shardman.local set cluster = %s, node_id = %s, lord = false, epoch = %s",
                (run.cluster_id, self.node, run.epoch),
            )
            await conn.execute("select shardman.set_database()")
        await self._same_hashes(run, conn)

    async def _same_hashes(self, run: Run, conn: Connection) -> None:
        query = "select shardman.hash_samples()"
        mine, other = await value(await run.node(0), query), await value(conn, query)
        if differing := sorted(t for t in mine if mine[t] != other[t]):
            raise UserError(
                f"the server hashes differently than the lord: {', '.join(differing)}",
                "Rows would be looked for in the wrong partitions; use servers of one kind",
                code=Code.SERVER_UNSUITABLE,
            )

    async def undo(self, run: Run) -> None:
        conn = await run.node(self.node)
        if not await value(conn, "select to_regclass('shardman.local') is not null"):
            return
        cur = await conn.execute("select cluster, node_id from shardman.local")
        if await cur.fetchone() == (run.cluster_id, self.node):
            await forget(run, conn, self.node, LIMIT_S)
