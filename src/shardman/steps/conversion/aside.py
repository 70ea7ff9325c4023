"""What is left of the plain table."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

from shardman import names
from shardman.steps.base import FinishStep, Run, Scope, step
from shardman.steps.catalog import relation as find
from shardman.steps.catalog import written
from shardman.steps.conversion.log import stop_log


@step("drop_aside")
@dataclass(frozen=True)
class DropAside(FinishStep):
    """Drops the plain table, whose rows are proven to be in the partitions, and its log."""

    leaves = "the plain table under another name, and its log"

    node: int
    relation: str

    def scope(self) -> Scope:
        return Scope.of([self.node])

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        name = self._aside(run)
        if run.figures.rows is not None:
            run.say(f"Copied {run.figures.rows} rows and found them equal.")
        await stop_log(run, self.node)
        if (found := await find(conn, name)) is not None:
            try:
                await conn.execute(sql.SQL("drop table {}").format(found))
            except psycopg.errors.DependentObjectsStillExist as error:
                run.say(f"The plain table is left as {name}: {error.diag.message_detail}")
                run.figures.keep(self.node, [await written(conn, *names.unquote(name))])

    def _aside(self, run: Run) -> str:
        schema, _ = names.unquote(self.relation)
        return names.quoted(schema, names.set_aside(self.relation, run.cmd_id))
