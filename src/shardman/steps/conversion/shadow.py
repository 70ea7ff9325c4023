"""The sharded table under another name."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql
from psycopg.types.json import Jsonb

from shardman import names
from shardman.pg.connection import Connection
from shardman.steps.base import Made, OfTable, Run, UndoableStep, step
from shardman.steps.catalog import relation as find
from shardman.steps.conversion.definition import make_parent, parts_of


@step("conversion_shadow")
@dataclass(frozen=True)
class ConversionShadow(OfTable, UndoableStep):
    """The sharded table under another name: parent, partitions, and data tables without keys."""

    def makes(self) -> Made:
        return Made(f"the partitions of {self.relation} under another name")

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        shadow = names.shadow(self.relation, run.cmd_id)
        await make_parent(conn, self.definition, shadow)
        for k, part in enumerate(await parts_of(conn, self.definition)):
            # One transaction each: a data table is never there without hanging on the shadow.
            async with conn.transaction():
                await self._part(conn, shadow, part, k)

    async def _part(self, conn: Connection, shadow: str, part: str, k: int) -> None:
        definition = Jsonb(self.definition)
        count = self.definition["partitions_count"]
        await conn.execute(
            "select shardman.make_partition(%s, %s, %s, %s, %s)",
            (definition, shadow, part, count, k),
        )
        await conn.execute(
            "select shardman.make_data_table(%s, %s, %s, false)", (part, shadow, definition)
        )
        await conn.execute("select shardman.attach_data(%s)", (part,))

    async def undo(self, run: Run) -> None:
        conn = await run.node(self.node)
        shadow = names.shadow(self.relation, run.cmd_id)
        # One by one: dropping thousands of tables at once needs more locks than a server has.
        cur = await conn.execute(
            "select n.nspname, c.relname from shardman.shadow_tables(%s) as t"
            " join pg_class c on c.oid = t.part join pg_namespace n on n.oid = c.relnamespace",
            (shadow,),
        )
        for schema, part in await cur.fetchall():
            await conn.execute(sql.SQL("drop table {}").format(sql.Identifier(schema, part)))
        if (found := await find(conn, shadow)) is not None:
            await conn.execute(sql.SQL("drop table {}").format(found))
