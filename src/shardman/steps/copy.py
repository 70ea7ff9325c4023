"""The step that copies a partition's rows beside the running system."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from psycopg import sql

from shardman import names
from shardman.pg import slots
from shardman.pg.bounded import shut
from shardman.pg.connection import Connection
from shardman.pg.copy_pipe import Pump
from shardman.steps.base import Made, Run, Together, UndoableStep, step
from shardman.steps.catalog import data_table, need_relation, value

PROGRESS_S = 0.3
#: A copy that was stopped tells both servers; one that hangs does not listen.
STOP_S = 2.0
T = TypeVar("T")


async def _export_snapshot(run: Run, node: int, slot: str) -> tuple[Connection, str]:
    """Makes a logical slot; the connection that keeps its snapshot, and the snapshot's name."""
    conn = await run.replication(node)
    try:
        return conn, await slots.create_exporting(conn, slot)
    except BaseException:
        await conn.close()
        raise


async def behind_writers(run: Run, node: int, work: Coroutine[Any, Any, T]) -> T:
    """Awaits work that makes a slot: that waits for every write transaction of the server. Says for
    whom."""
    making = asyncio.create_task(work)
    conn = await run.node(node)
    try:
        while not (await asyncio.wait({making}, timeout=1.0))[0]:
            whom = await value(conn, "select shardman.writers()")
            await run.waits_for(f"{whom} on node {node}" if whom else None)
    except BaseException:
        making.cancel()
        await asyncio.wait({making})
        raise
    await run.waits_for(None)
    return await making


@asynccontextmanager
async def exported(run: Run, node: int, slot: str) -> AsyncIterator[str]:
    """Makes a logical slot, saying for whom it waits; the name of its snapshot, which lives as long
    as the block."""
    keeper, snapshot = await behind_writers(run, node, _export_snapshot(run, node, slot))
    try:
        yield snapshot
    finally:
        await keeper.close()


async def carry(run: Run, pump: Pump, copy_out: bytes, copy_in: bytes) -> None:
    """Runs a COPY from one node to another, showing how far it is."""

    async def tell() -> None:
        await run.progress(bytes_done=pump.bytes_done, rows_done=pump.rows_done)

    await carried(pump, copy_out, copy_in, tell)


async def carried(
    pump: Pump,
    copy_out: bytes,
    copy_in: bytes,
    tell: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Runs a COPY from one node to another.

    Args:
        tell: called now and then meanwhile.
    """
    carrying = asyncio.create_task(asyncio.to_thread(pump.run, copy_out, copy_in))
    try:
        while not (await asyncio.wait({carrying}, timeout=PROGRESS_S))[0]:
            if tell is not None:
                await tell()
    except BaseException:
        # The thread uses the connections: they must not be closed under it.
        pump.stopped.set()
        if not (await asyncio.wait({carrying}, timeout=STOP_S))[0]:
            shut(pump.source)
            shut(pump.target)
            await asyncio.wait({carrying})
        raise
    await carrying


async def copy_shape(source: Connection, name: str) -> tuple[sql.SQL, sql.SQL]:
    """The columns that a COPY of a table carries, and its format."""
    columns = await value(source, "select shardman.copy_columns(%s)", name)
    binary = await value(source, "select shardman.binary_copy(%s)", name)
    return sql.SQL(columns or ""), sql.SQL("binary" if binary else "text")


async def begin_at(source: Connection, snapshot: str) -> None:
    """Opens a transaction that sees what an exported snapshot sees."""
    await source.execute("begin isolation level repeatable read, read only")
    await source.execute(sql.SQL("set transaction snapshot {}").format(sql.Literal(snapshot)))


async def begin_writing(dest: Connection, name: str) -> None:
    """In a transaction that has locked a copy: from here on rows may be written into it, as replication does
    it. The triggers that make a replica read-only do not fire, nor do the application's.

    Raises:
        psycopg.Error: SHM09, the table has code that must not run as the cluster's role.
    """
    await dest.execute("set local session_replication_role = replica")
    await dest.execute("select shardman.need_trusted(array[shardman.find_relation(%s)])", (name,))


@step("copy_rows")
@dataclass(frozen=True)
class CopyRows(Together, UndoableStep):
    """Makes the slot and copies the rows of its snapshot: every later write comes by the copy channel."""

    leaves = "the slot, for which the source keeps WAL, and rows; these go with the table"

    def makes(self) -> Made:
        return Made(f"the slot of the copy of {self.part} on node {self.src}")

    async def do(self, run: Run) -> None:
        async with (
            exported(run, self.src, names.copy_channel(run.cluster_id, run.cmd_id)) as snapshot,
            run.extra_session(self.src) as source,
            run.extra_session(self.dest) as dest,
        ):
            await self._copy(run, source, dest, snapshot)

    async def _copy(self, run: Run, source: Connection, dest: Connection, snapshot: str) -> None:
        tables = [await data_table(source, part) for part in self.parts]
        total = "select sum(shardman.table_bytes(t))::bigint from unnest(%s::text[]) as t"
        await run.progress(bytes_done=0, bytes_total=await value(source, total, tables))
        shapes = [await copy_shape(source, name) for name in tables]
        await begin_at(source, snapshot)
        await dest.execute("begin")
        pump = Pump(source.pgconn, dest.pgconn)
        for name, shape in zip(tables, shapes, strict=True):
            await self._table(run, pump, source, dest, name, shape)
        await dest.execute("commit")
        await source.execute("commit")
        run.figures.bytes = pump.bytes_done

    async def _table(
        self,
        run: Run,
        pump: Pump,
        source: Connection,
        dest: Connection,
        name: str,
        shape: tuple[sql.SQL, sql.SQL],
    ) -> None:
        out, into = await need_relation(source, name), await need_relation(dest, name)
        columns, form = shape
        # Emptied in the same transaction, the table takes frozen rows: no second write by vacuum.
        await dest.execute(sql.SQL("truncate {}").format(into))
        await begin_writing(dest, name)
        await carry(
            run,
            pump,
            sql.SQL("copy {} ({}) to stdout (format {})").format(out, columns, form).as_bytes(),
            sql.SQL("copy {} ({}) from stdin (format {}, freeze)")
            .format(into, columns, form)
            .as_bytes(),
        )

    async def undo(self, run: Run) -> None:
        await slots.drop(await run.node(self.src), names.copy_channel(run.cluster_id, run.cmd_id))
