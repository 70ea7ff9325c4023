"""What is left of the sharded table."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

from shardman import names
from shardman.pg.bounded import unhurried
from shardman.steps.base import FinishStep, Run, step
from shardman.steps.catalog import relation as find
from shardman.steps.unsharding.base import OfSharded
from shardman.steps.unsharding.log import drop_log


@step("drop_former")
@dataclass(frozen=True)
class DropFormer(OfSharded, FinishStep):
    """Drops the partitions, whose rows are proven to be in the plain table, and the log."""

    leaves = "partitions under other names, and the log"

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        schema, _ = names.unquote(self.relation)
        former = names.quoted(schema, f"shardman_c{run.cmd_id}_was")
        # One by one: dropping thousands of tables at once needs more locks than a server has.
        cur = await conn.execute("select * from shardman.former_parts(%s)", (former,))
        for part in await cur.fetchall():
            await conn.execute(sql.SQL("drop table {}").format(sql.Identifier(*part)))
        if (found := await find(conn, former)) is not None:
            try:
                await conn.execute(sql.SQL("drop table {}").format(found))
            except psycopg.errors.DependentObjectsStillExist as error:
                run.say(f"The empty {former} is left: {error.diag.message_detail}")
        await drop_log(run, self.node)
        if run.figures.rows is not None:
            run.say(f"Copied {run.figures.rows} rows and found them equal.")


@step("validate_plain")
@dataclass(frozen=True)
class ValidatePlain(OfSharded, FinishStep):
    """Validates the foreign keys of the plain table, beside readers and writers."""

    leaves = "foreign keys that hold for what is written, and are not validated"

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        with unhurried(conn):
            await conn.execute("select shardman.validate_plain(%s)", (self.relation,))
