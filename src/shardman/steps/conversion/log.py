"""The log of the keys that are written."""

from __future__ import annotations

import math
from dataclasses import dataclass

from shardman.pg.connection import Connection
from shardman.steps.base import Made, Run, Scope, UndoableStep, step
from shardman.steps.catalog import value
from shardman.steps.locks import begin_locked, patiently, rolled_back

#: How long a lock is waited for when something is taken back; the janitor comes again.
UNDO_S = 15.0


async def lock_patiently(
    run: Run, conn: Connection, node: int, table: str, mode: str, limit_s: float = math.inf
) -> None:
    """Opens a transaction that holds a lock on a table, saying for whom it waits meanwhile.

    Raises:
        Temporary: it could not be had for so long.
    """
    await patiently(
        run,
        lambda deadline: begin_locked(conn, [table], mode, deadline, node),
        limit_s=limit_s,
    )


@step("conversion_log")
@dataclass(frozen=True)
class ConversionLog(UndoableStep):
    """From here on every write to the table leaves its key in a log."""

    leaves = "triggers and a log: writes go on, a little slower"

    node: int
    relation: str

    def scope(self) -> Scope:
        return Scope.of([self.node])

    def makes(self) -> Made:
        return Made(f"the log of writes to {self.relation}")

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        args = (self.relation, run.cmd_id)
        await conn.execute("select shardman.make_conversion_log(%s, %s)", args)
        async with rolled_back(conn):
            await lock_patiently(run, conn, self.node, self.relation, "share row exclusive")
            await conn.execute("select shardman.start_conversion_log(%s, %s)", args)
            await conn.execute("commit")

    async def undo(self, run: Run) -> None:
        await stop_log(run, self.node)


async def stop_log(run: Run, node: int) -> None:
    """Drops the log with its triggers and functions, wherever the table is by now."""
    conn = await run.node(node)
    if (table := await value(conn, "select shardman.logged_table(%s)", run.cmd_id)) is None:
        await conn.execute("select shardman.stop_conversion_log(%s)", (run.cmd_id,))
        return
    async with rolled_back(conn):
        await lock_patiently(run, conn, node, table, "access exclusive", UNDO_S)
        await conn.execute("select shardman.stop_conversion_log(%s)", (run.cmd_id,))
        await conn.execute("commit")
