"""The copy of the partitions' rows into the plain table, and the proof that both are the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from shardman.errors import Code, UserError
from shardman.pg.bounded import unhurried
from shardman.pg.connection import Connection
from shardman.steps.base import PrepareStep, Run, step
from shardman.steps.catalog import relation as find
from shardman.steps.handed import CopyEnd
from shardman.steps.locks import rolled_back
from shardman.steps.unsharding.base import OfDefined, OfSharded, parts_of
from shardman.steps.unsharding.catch_up import catch_up
from shardman.tasks import all_of

#: Sessions that copy or compare at the same time.
PARALLEL = 2
#: Blocks of 8 kB in one transaction: one that the application's DDL may have to wait for.
CHUNK_BLOCKS = 2048
#: A table that is truncated or rewritten under our hands is copied anew this often.
MAX_TIMES = 5


class Rewritten(Exception):
    """A table was truncated or rewritten: its blocks mean something else now."""


@dataclass(frozen=True)
class Chunk:
    """Some blocks of a table."""

    table: str
    filenode: int
    first: int


@dataclass(frozen=True)
class Frame:
    """A snapshot that several sessions share, and what the tables consisted of then."""

    snapshot: str
    chunks: Sequence[Chunk]
    blocks: int


@asynccontextmanager
async def frame(conn: Connection, tables: Sequence[str]) -> AsyncIterator[Frame]:
    """Exports a snapshot of the node for as long as the block runs, without locks on the tables."""
    files: dict[str, int] = {}
    for table in tables:
        files[table] = await _number(
            conn, "pg_relation_filenode(shardman.find_relation(%s)::regclass)", table
        )
    async with rolled_back(conn):
        await conn.execute("begin isolation level repeatable read")
        row = await (await conn.execute("select pg_export_snapshot()")).fetchone()
        chunks: list[Chunk] = []
        total = 0
        for table in tables:
            blocks = await _number(
                conn,
                "pg_relation_size(shardman.find_relation(%s)::regclass)"
                " / current_setting('block_size')::int",
                table,
            )
            total += blocks
            chunks += [Chunk(table, files[table], n) for n in range(0, blocks, CHUNK_BLOCKS)]
        yield Frame(str(row[0]) if row else "", chunks, total)
        await conn.execute("commit")


async def _number(conn: Connection, what: str, table: str) -> int:
    row = await (await conn.execute(f"select {what}".encode(), (table,))).fetchone()
    return int(row[0]) if row else 0


async def in_frame(conn: Connection, shared: Frame, query: str, *params: Any) -> Any:
    """The single row of a query in a transaction of its own with the frame's snapshot.

    Raises:
        Rewritten: a table was truncated or rewritten since.
    """
    async with rolled_back(conn):
        await conn.execute("begin isolation level repeatable read")
        await conn.execute(
            sql.SQL("set transaction snapshot {}").format(sql.Literal(shared.snapshot))
        )
        try:
            with unhurried(conn):
                row = await (await conn.execute(query.encode(), params)).fetchone()
        except psycopg.Error as error:
            if error.sqlstate == "SHM03":
                raise Rewritten from error
            raise
        await conn.execute("commit")
    return row


async def for_chunks(
    run: Run, node: int, shared: Frame, work: Callable[[Connection, Chunk], Awaitable[None]]
) -> None:
    """Does the work for each chunk, in several sessions at the same time; the first failure ends it."""
    queue = list(reversed(shared.chunks))

    async def one(conn: Connection) -> None:
        while queue:
            await work(conn, queue.pop())

    async with AsyncExitStack() as extra:
        sessions = [
            await extra.enter_async_context(run.extra_session(node)) for _ in range(PARALLEL)
        ]
        await all_of(*(one(conn) for conn in sessions))


def too_busy(relation: str) -> UserError:
    return UserError(
        f"{relation} is truncated or rewritten again and again",
        "Try again when that is over",
        code=Code.TOO_BUSY,
    )


@step("unshard_copy")
@dataclass(frozen=True)
class UnshardCopy(OfDefined, PrepareStep):
    """Copies the rows of one snapshot, taken when the log was already kept, into the plain table."""

    leaves = "rows; they go with the plain table"

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        for _ in range(MAX_TIMES):
            try:
                await self._copy(run, conn)
            except Rewritten:
                # What is in the log stays: bringing a key up to date twice does no harm.
                found = await find(conn, self.shadow(run)) or sql.SQL("")
                await conn.execute(sql.SQL("truncate {}").format(found))
            else:
                break
        else:
            raise too_busy(self.relation)
        await conn.execute(
            "select shardman.make_unshard_replay(%s, %s, %s, %s)",
            (self.relation, self.shadow(run), Jsonb(self.definition), run.cmd_id),
        )

    async def _copy(self, run: Run, conn: Connection) -> None:
        rows = done = 0
        tables = [each.data for each in await parts_of(conn, self.relation)]
        async with frame(conn, tables) as shared:
            total = shared.blocks * 8192
            await run.progress(bytes_done=0, bytes_total=total, rows_done=0)

            async def copy(session: Connection, chunk: Chunk) -> None:
                nonlocal rows, done
                row = await in_frame(
                    session,
                    shared,
                    "select shardman.unshard_chunk(%s, %s, %s, %s, %s)",
                    *(chunk.table, self.shadow(run), chunk.filenode, chunk.first, CHUNK_BLOCKS),
                )
                rows += row[0]
                done += CHUNK_BLOCKS * 8192
                await run.progress(bytes_done=min(done, total), rows_done=rows)

            await for_chunks(run, self.node, shared, copy)
        await note_end(run, conn)
        run.figures.rows, run.figures.bytes = rows, total


async def note_end(run: Run, conn: Connection) -> None:
    """Who has an older snapshot would not see what was copied: see the cut-over."""
    cur = await conn.execute(
        "select clock_timestamp(), pg_snapshot_xmax(pg_current_snapshot())::xid::text"
    )
    if (row := await cur.fetchone()) is not None:
        run.handed.copied = CopyEnd(*row)


@dataclass
class Content:
    """Number of rows and a hash that does not depend on their order."""

    rows: int = 0
    hash: int = 0

    def add(self, row: tuple[int, Any]) -> None:
        self.rows += int(row[0])
        self.hash += int(row[1])


@step("unshard_verify")
@dataclass(frozen=True)
class UnshardVerify(OfSharded, PrepareStep):
    """Compares partitions and plain table under one snapshot, leaving out the keys that are in the log: those
    are read from the partitions again before the switch."""

    leaves = "nothing: locks end with their sessions"

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        for _ in range(MAX_TIMES):
            try:
                await catch_up(run, conn, self.relation)
                parts, plain = await self._contents(run, conn)
            except Rewritten:
                continue
            if parts != plain:
                raise UserError(
                    f"the partitions of {self.relation} have {parts.rows} rows and the plain table"
                    f" {plain.rows}, or their contents differ",
                    "Nothing was changed; report this with the server's log",
                    code=Code.COPIES_DIFFER,
                )
            run.figures.rows = plain.rows
            return
        raise too_busy(self.relation)

    async def _contents(self, run: Run, conn: Connection) -> tuple[Content, Content]:
        parts, plain = Content(), Content()
        shadow = self.shadow(run)
        tables = [each.data for each in await parts_of(conn, self.relation)]
        async with frame(conn, [*tables, shadow]) as shared:

            async def read(session: Connection, chunk: Chunk) -> None:
                row = await in_frame(
                    session,
                    shared,
                    "select rows, hash from shardman.unshard_content(%s, %s, %s, %s, %s, %s)",
                    *(chunk.table, tables[0], run.cmd_id),
                    *(chunk.filenode, chunk.first, CHUNK_BLOCKS),
                )
                (plain if chunk.table == shadow else parts).add(row)

            await for_chunks(run, self.node, shared, read)
        return parts, plain
