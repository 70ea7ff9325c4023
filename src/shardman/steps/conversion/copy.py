"""The copy of the plain table's rows."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass

from psycopg import sql
from psycopg.types.json import Jsonb

from shardman import names
from shardman.errors import Code, UserError
from shardman.pg.bounded import unhurried
from shardman.pg.connection import Connection
from shardman.pg.copy_pipe import Pump
from shardman.steps.base import OfTable, PrepareStep, Run, step
from shardman.steps.catalog import relation as find
from shardman.steps.catalog import value
from shardman.steps.conversion.definition import check_unchanged, explained
from shardman.steps.conversion.frame import (
    CHUNK_BLOCKS,
    MAX_COPIES,
    Frame,
    Rewritten,
    frame,
    look_through,
)
from shardman.steps.copy import carried, copy_shape
from shardman.steps.handed import CopyEnd
from shardman.steps.locks import rolled_back
from shardman.tasks import all_of


@dataclass(frozen=True)
class Carrier:
    """Carries rows of the plain table to a node.

    Args:
        source: the query for them, to which their partitions and blocks are added.
        parts: numbers of the node's partitions.
        columns, form: of the COPY.
    """

    shadow: str
    source: str
    parts: list[int]
    columns: sql.SQL
    form: sql.SQL

    def query(self, blocks: str) -> str:
        """The rows for the node; blocks: a condition on t, or nothing."""
        numbers = ",".join(map(str, self.parts))
        return f"{self.source} = any ('{{{numbers}}}'::bigint[]){blocks}"

    async def carry(self, src: Connection, dest: Connection, blocks: str) -> int:
        """Copies rows to the shadow on another node, in whatever transactions the sessions are; how many."""
        into = await find(dest, self.shadow)
        assert into is not None
        await dest.execute("select shardman.need_trusted_shadow(%s)", (self.shadow,))
        pump = Pump(src.pgconn, dest.pgconn)
        out = f"copy ({self.query(blocks)}) to stdout (format {self.form.as_string(None)})"
        await carried(
            pump,
            out.encode(),
            sql.SQL("copy {} ({}) from stdin (format {})")
            .format(into, self.columns, self.form)
            .as_bytes(),
        )
        return pump.rows_done


async def carriers(run: Run, table: OfTable) -> dict[int, Carrier]:
    """For each node that gets partitions; the shadow is there."""
    conn = await run.node(table.node)
    shadow = names.shadow(table.relation, run.cmd_id)
    source = await value(
        conn,
        "select shardman.chunk_source(%s, %s, %s)",
        *(table.relation, shadow, Jsonb(table.definition)),
    )
    if source is None:
        await check_unchanged(conn, table.relation, table.definition)
    columns, form = await copy_shape(conn, table.relation)
    return {
        n: Carrier(shadow, source, parts, columns, form)
        for n in table.nodes()
        if (parts := table.parts(n))
    }


async def blocks_of(conn: Connection, first: int) -> str:
    """The condition for a chunk of blocks."""
    found = await value(conn, "select shardman.block_range('t', %s, %s)", first, CHUNK_BLOCKS)
    return f" and {found}"


@step("conversion_copy")
@dataclass(frozen=True)
class ConversionCopy(OfTable, PrepareStep):
    """Copies the rows of one snapshot, taken when the log was already kept, to the nodes where they are to lie:
    each row once."""

    leaves = "rows; they go with the partitions"

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        for _ in range(MAX_COPIES):
            try:
                async with explained(conn, self.relation, self.definition):
                    await self._copy(run, conn)
            except Rewritten:
                # What is in the log stays: bringing a key up to date twice does no harm.
                await all_of(*(self._empty(run, n) for n in self.nodes()))
            else:
                break
        else:
            raise UserError(
                f"{self.relation} is truncated or rewritten again and again",
                "Try again when that is over",
                code=Code.TOO_BUSY,
            )

    async def _empty(self, run: Run, node: int) -> None:
        conn = await run.node(node)
        shadow = names.shadow(self.relation, run.cmd_id)
        cur = await conn.execute(
            "select data::regclass::text from shardman.local_parts(%s)", (shadow,)
        )
        for (data,) in await cur.fetchall():
            await conn.execute(f"truncate {data}".encode())

    async def _copy(self, run: Run, conn: Connection) -> None:
        work = await carriers(run, self)
        rows = bytes_done = 0
        async with frame(conn, self.relation) as shared, AsyncExitStack() as stack:
            total = shared.blocks * 8192
            await run.progress(bytes_done=0, bytes_total=total, rows_done=0)

            async def to(node: int, carrier: Carrier) -> None:
                nonlocal rows, bytes_done
                src = await stack.enter_async_context(run.extra_session(self.node))
                dest = src
                if node != self.node:
                    dest = await stack.enter_async_context(run.extra_session(node))
                for first in shared.chunks:
                    rows += await self._chunk(shared, carrier, src, dest, first)
                    bytes_done += CHUNK_BLOCKS * 8192 // len(work)
                    await run.progress(bytes_done=min(bytes_done, total), rows_done=rows)

            await all_of(*(to(n, carrier) for n, carrier in work.items()))
        # Who has an older snapshot would not see what was copied: see the cut-over.
        cur = await conn.execute(
            "select clock_timestamp(), pg_snapshot_xmax(pg_current_snapshot())::xid::text"
        )
        if (row := await cur.fetchone()) is not None:
            run.handed.copied = CopyEnd(*row)
        run.figures.rows, run.figures.bytes = rows, total

    async def _chunk(
        self, shared: Frame, carrier: Carrier, src: Connection, dest: Connection, first: int
    ) -> int:
        blocks = await blocks_of(src, first)
        if dest is src:
            async with look_through(src, shared, self.relation):
                with unhurried(src):
                    return int(
                        await value(
                            src,
                            "select shardman.copy_chunk(%s, %s)",
                            *(carrier.shadow, carrier.query(blocks)),
                        )
                    )
        async with look_through(src, shared, self.relation), rolled_back(dest):
            await dest.execute("begin")
            await src.execute("select shardman.need_trusted_shadow(%s)", (carrier.shadow,))
            rows = await carrier.carry(src, dest, blocks)
            await dest.execute("commit")
        return rows
