"""Steps on a node's copy of the metadata, and on the slot and subscription that keep it."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from shardman import names
from shardman.errors import Code, Temporary
from shardman.pg import slots, subscriptions
from shardman.pg.connection import Connection
from shardman.pg.initialize import PUBLISHED
from shardman.steps.base import FinishStep, Made, Run, Scope, UndoableStep, step
from shardman.steps.catalog import value
from shardman.steps.copy import begin_at, exported
from shardman.tasks import each_of


@step("node_metadata")
@dataclass(frozen=True)
class NodeMetadata(UndoableStep):
    """A copy of the metadata of one snapshot, and a subscription from that instant on."""

    node: int

    def scope(self) -> Scope:
        return Scope.of([self.node])

    def makes(self) -> Made:
        return Made(
            f"the metadata on node {self.node}, and the slot and subscription that keep them",
            shared=True,
        )

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        name = names.meta_slot(run.cluster_id, self.node)
        # What was granted and taken since the tables were sharded.
        await (await run.node(0)).execute("select shardman.remember_rights()")
        async with exported(run, 0, name) as snapshot:
            await self._copy(run, conn, snapshot)
        await subscriptions.create(
            conn, name, await run.peer(0), names.meta_publication(run.cluster_id)
        )

    async def _copy(self, run: Run, conn: Connection, snapshot: str) -> None:
        async with run.extra_session(0) as source:
            await begin_at(source, snapshot)
            async with conn.transaction():
                for table in PUBLISHED:
                    name = sql.Identifier("shardman", table)
                    await copy_table(source, conn, name, name)
                await conn.execute("select shardman.note_missing_schemas()")
            await source.execute("commit")

    async def undo(self, run: Run) -> None:
        name = names.meta_slot(run.cluster_id, self.node)
        # The lord's slot goes also where the node is away: WAL is kept for it.
        await each_of(self._unsubscribe(run, name), self._drop_slot(run, name))

    async def _unsubscribe(self, run: Run, name: str) -> None:
        await subscriptions.drop(await run.node(self.node), name)

    async def _drop_slot(self, run: Run, name: str) -> None:
        await slots.drop(await run.node(0), name)


async def copy_table(
    source: Connection, dest: Connection, table: sql.Identifier, to: sql.Identifier
) -> None:
    """Copies all rows of a table from one server into another one's table of the same columns."""
    async with (
        source.cursor() as out,
        dest.cursor() as into,
        out.copy(sql.SQL("copy {} to stdout").format(table)) as rows,
        into.copy(sql.SQL("copy {} from stdin").format(to)) as target,
    ):
        async for block in rows:
            await target.write(block)


@step("drop_meta_slot")
@dataclass(frozen=True)
class DropMetaSlot(FinishStep):
    """Drops the lord's slot for a node that was removed: it would keep WAL for ever."""

    leaves = "the slot, for which the lord keeps WAL"

    of: int

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        lord = await run.node(0)
        if await value(lord, "select exists (select from shardman.returns_of(%s))", self.of):
            raise Temporary(
                f"node {self.of} has to know what it sets aside first", code=Code.NODE_RETURNING
            )
        await slots.drop(lord, names.meta_slot(run.cluster_id, self.of))
