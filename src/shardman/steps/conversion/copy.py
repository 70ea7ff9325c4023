"""The copy of the plain table's rows."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql
from psycopg.types.json import Jsonb

from shardman import names
from shardman.errors import Code, UserError
from shardman.pg.connection import Connection
from shardman.steps.base import OfTable, PrepareStep, Run, step
from shardman.steps.catalog import relation as find
from shardman.steps.conversion.definition import explained
from shardman.steps.conversion.frame import CHUNK_BLOCKS, MAX_COPIES, Rewritten, frame, in_frame
from shardman.steps.conversion.sessions import for_each, sessions
from shardman.steps.handed import CopyEnd


@step("conversion_copy")
@dataclass(frozen=True)
class ConversionCopy(OfTable, PrepareStep):
    """Copies the rows of one snapshot, taken when the log was already kept, into the shadow."""

    leaves = "rows; they go with the partitions"

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        shadow = names.shadow(self.relation, run.cmd_id)
        for _ in range(MAX_COPIES):
            try:
                async with explained(conn, self.relation, self.definition):
                    await self._copy(run, conn, shadow)
            except Rewritten:
                # What is in the log stays: bringing a key up to date twice does no harm.
                await conn.execute(
                    sql.SQL("truncate {}").format(await find(conn, shadow) or sql.SQL(""))
                )
            else:
                break
        else:
            raise UserError(
                f"{self.relation} is truncated or rewritten again and again",
                "Try again when that is over",
                code=Code.TOO_BUSY,
            )
        await conn.execute(
            "select shardman.make_conversion_replay(%s, %s, %s, %s)",
            (self.relation, shadow, Jsonb(self.definition["key"]), run.cmd_id),
        )

    async def _copy(self, run: Run, conn: Connection, shadow: str) -> None:
        rows = done = 0
        async with frame(conn, self.relation) as shared, sessions(run, self.node) as copiers:
            total = shared.blocks * 8192
            await run.progress(bytes_done=0, bytes_total=total, rows_done=0)

            async def copy(session: Connection, first: int) -> None:
                nonlocal rows, done
                row = await in_frame(
                    session,
                    shared,
                    "select shardman.copy_chunk(%s, %s, %s, %s, %s)",
                    *(self.relation, shadow, shared.filenode, first, CHUNK_BLOCKS),
                )
                rows += row[0]
                done += CHUNK_BLOCKS * 8192
                await run.progress(bytes_done=min(done, total), rows_done=rows)

            await for_each(copiers, shared.chunks, copy)
        # Who has an older snapshot would not see what was copied: see the cut-over.
        cur = await conn.execute(
            "select clock_timestamp(), pg_snapshot_xmax(pg_current_snapshot())::xid::text"
        )
        if (row := await cur.fetchone()) is not None:
            run.handed.copied = CopyEnd(*row)
        run.figures.rows, run.figures.bytes = rows, total
