"""The plain table under another name, and its keys and indexes."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql
from psycopg.types.json import Jsonb

from shardman.pg.bounded import unhurried
from shardman.steps.base import Made, PrepareStep, Run, UndoableStep, step
from shardman.steps.catalog import relation as find
from shardman.steps.unsharding.base import OfDefined


@step("unshard_shadow")
@dataclass(frozen=True)
class UnshardShadow(OfDefined, UndoableStep):
    """The plain table under another name, without keys."""

    def makes(self) -> Made:
        return Made(f"the plain table of {self.relation} under another name")

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        await conn.execute(
            "select shardman.make_plain(%s, %s, %s)",
            (self.relation, self.shadow(run), Jsonb(self.definition)),
        )

    async def undo(self, run: Run) -> None:
        conn = await run.node(self.node)
        if (found := await find(conn, self.shadow(run))) is not None:
            await conn.execute(sql.SQL("drop table {}").format(found))


@step("unshard_index")
@dataclass(frozen=True)
class UnshardIndex(OfDefined, PrepareStep):
    """Keys, indexes and statistics of the plain table, built when its rows are in."""

    leaves = "indexes; they go with the plain table"

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        with unhurried(conn):
            await conn.execute(
                "select shardman.make_plain_indexes(%s, %s, %s,"
                " (select relowner from pg_class where oid = shardman.find_relation(%s)))",
                (self.shadow(run), Jsonb(self.definition), run.cmd_id, self.relation),
            )
            if (found := await find(conn, self.shadow(run))) is not None:
                await conn.execute(sql.SQL("analyze {}").format(found))
