"""The log of the keys that are written to the data tables."""

from __future__ import annotations

import math
from dataclasses import dataclass

from psycopg import sql

from shardman.pg.connection import Connection
from shardman.steps.base import Made, Run, UndoableStep, step
from shardman.steps.locks import begin_locked, patiently, rolled_back
from shardman.steps.unsharding.base import OfSharded, parts_of

#: How long a lock is waited for when something is taken back; the janitor comes again.
UNDO_S = 15.0


@step("unshard_log")
@dataclass(frozen=True)
class UnshardLog(OfSharded, UndoableStep):
    """From here on every write to a partition leaves its key in a log."""

    leaves = "triggers and a log: writes go on, a little slower"

    def makes(self) -> Made:
        return Made(f"the log of writes to {self.relation}")

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        await conn.execute("select shardman.make_unshard_log(%s, %s)", (self.relation, run.cmd_id))
        for each in await parts_of(conn, self.relation):
            async with rolled_back(conn):
                await self._lock(run, conn, each.data, "share row exclusive")
                await conn.execute(
                    "select shardman.start_unshard_log(%s, %s, %s)",
                    (each.data, each.k, run.cmd_id),
                )
                await conn.execute("commit")

    async def undo(self, run: Run) -> None:
        conn = await run.node(self.node)
        cur = await conn.execute("select shardman.unshard_logged(%s)", (run.cmd_id,))
        for (data,) in await cur.fetchall():
            async with rolled_back(conn):
                await self._lock(run, conn, data, "access exclusive", UNDO_S)
                await conn.execute("select shardman.stop_unshard_log(%s, %s)", (data, run.cmd_id))
                await conn.execute("commit")
        await drop_log(run, self.node)

    async def _lock(
        self, run: Run, conn: Connection, data: str, mode: str, limit_s: float = math.inf
    ) -> None:
        """Opens a transaction that holds a lock on a data table."""
        await patiently(
            run,
            lambda deadline: begin_locked(conn, [data], mode, deadline, self.node),
            limit_s=limit_s,
        )


async def drop_log(run: Run, node: int) -> None:
    """Drops the log and its functions, which no trigger uses any more."""
    conn = await run.node(node)
    for statement in (
        "drop function if exists {log}()",
        "drop function if exists {replay}()",
        "drop table if exists {log}",
    ):
        await conn.execute(
            sql.SQL(statement).format(
                log=sql.Identifier("shardman", f"log_c{run.cmd_id}"),
                replay=sql.Identifier("shardman", f"replay_c{run.cmd_id}"),
            )
        )
