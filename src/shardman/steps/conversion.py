"""Steps that build a sharded table beside the plain one, while that is read and written.

The plain table's writes are logged by key. Its rows are copied under one snapshot into the *shadow*, a
sharded table under another name. Then the keys in the log are brought up to date in the shadow, again
and again; the last time is inside the fence (steps/conversion_fence.py). The SQL is in
sql/routines/80_conversion.sql.

Whatever these steps make carries the command's id in its name or hangs on something that does, so that
undoing takes away nothing else.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from shardman import names
from shardman.errors import UserError
from shardman.model.plan import Json
from shardman.steps.base import Connection, Run, step
from shardman.steps.catalog import data_table, value
from shardman.steps.catalog import relation as find
from shardman.steps.locks import begin_locked, patiently, rolled_back
from shardman.tasks import all_of

#: Sessions that copy, build or compare side by side.
PARALLEL = 2
#: Blocks of 8 kB in one transaction of the copy: one that the application's DDL may have to wait for.
CHUNK_BLOCKS = 2048
#: What is replayed within this fits into a fence; a little more with each round that it takes.
SHORT_S = 0.008
LONGER_S = 0.001
#: So many rounds without an end, and the application writes faster than we can follow.
MAX_ROUNDS = 500
#: A table that is truncated or rewritten under our hands is copied anew this often.
MAX_COPIES = 5
#: How long a lock is waited for when something is taken back; the janitor comes again.
UNDO_S = 15.0

_Work = Callable[[Connection, Any], Awaitable[None]]


class Rewritten(Exception):
    """The table was truncated or rewritten: its blocks mean something else now."""


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


async def for_each(conns: Sequence[Connection], items: Sequence[Any], work: _Work) -> None:
    """Does the work for every item, on all connections side by side; the first failure ends it."""
    queue = list(reversed(items))

    async def one(conn: Connection) -> None:
        while queue:
            await work(conn, queue.pop())

    await all_of(*(one(conn) for conn in conns))


@asynccontextmanager
async def sessions(run: Run, node: int) -> AsyncIterator[list[Connection]]:
    """PARALLEL more sessions on a node."""
    async with AsyncExitStack() as borrowed:
        yield [await borrowed.enter_async_context(run.borrow(node)) for _ in range(PARALLEL)]


async def check_unchanged(conn: Connection, table: str, definition: dict[str, Json]) -> None:
    """Raises UserError when somebody has changed the table since it was described."""
    if await find(conn, table) is None:
        raise UserError(f"{table} was dropped or renamed while it was being sharded", "Try again")
    if changed := await value(
        conn, "select shardman.changed_definition(%s, %s)", table, Jsonb(definition)
    ):
        raise UserError(f"{table} was changed while it was being sharded ({changed})", "Try again")


@asynccontextmanager
async def explained(
    conn: Connection, table: str, definition: dict[str, Json]
) -> AsyncIterator[None]:
    """A statement that fails because somebody changes the table meanwhile says so."""
    try:
        yield
    except (psycopg.ProgrammingError, psycopg.DataError, psycopg.IntegrityError):
        await check_unchanged(conn, table, definition)
        raise


# -- the log ----------------------------------------------------------------------------------------


@step("conversion_log")
@dataclass(frozen=True)
class ConversionLog:
    """From here on every write to the table leaves its key in a log."""

    node: int
    relation: str

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


# -- the shadow -------------------------------------------------------------------------------------


@step("check_definition")
@dataclass(frozen=True)
class CheckDefinition:
    """Makes the table on every other node and takes it back at once: a type or a function of the
    user's that is missing there is noticed before anything is changed."""

    node: int
    relation: str
    definition: dict[str, Json]

    async def do(self, run: Run) -> None:
        lord = await run.node(0)
        cur = await lord.execute(
            "select id from shardman.nodes where (lord or worker_status = 'active') and id <> %s"
            " order by id",
            (self.node,),
        )
        for (node,) in await cur.fetchall():
            try:
                conn = await run.node(node)
            except psycopg.OperationalError:
                continue  # The plan has warned of it.
            await self._check(run, conn, node)

    async def _check(self, run: Run, conn: Connection, node: int) -> None:
        async with rolled_back(conn):
            await conn.execute("begin")
            try:
                await make_parent(conn, self.definition, names.shadow(self.relation, run.cmd_id))
            except psycopg.errors.DatabaseError as error:
                if isinstance(error, psycopg.OperationalError):
                    raise
                raise UserError(
                    f"node {node} cannot have {self.relation}: {error.diag.message_primary}",
                    "Make what is missing on that node first",
                ) from error
            await conn.execute("rollback")

    async def undo(self, run: Run) -> None:
        """Nothing was made."""


async def make_parent(conn: Connection, definition: dict[str, Json], name: str) -> None:
    """A partitioned parent without partitions."""
    await conn.execute("select shardman.make_parent(%s, %s)", (Jsonb(definition), name))


@step("conversion_shadow")
@dataclass(frozen=True)
class ConversionShadow:
    """The sharded table under another name: parent, slots, and data tables without keys."""

    node: int
    relation: str
    definition: dict[str, Json]

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
            "select shardman.make_slot(%s, %s, %s, %s, %s)", (definition, shadow, part, count, k)
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
            " join pg_class c on c.oid = t.slot join pg_namespace n on n.oid = c.relnamespace",
            (shadow,),
        )
        for schema, slot in await cur.fetchall():
            await conn.execute(sql.SQL("drop table {}").format(sql.Identifier(schema, slot)))
        if (found := await find(conn, shadow)) is not None:
            await conn.execute(sql.SQL("drop table {}").format(found))


async def parts_of(conn: Connection, definition: dict[str, Json]) -> list[str]:
    """Names of a table's partitions, in the order of their numbers."""
    return list(
        await value(
            conn,
            "select array_agg(shardman.suffixed(%s, '_' || k) order by k)"
            " from generate_series(0, %s - 1) as k",
            definition["relation"],
            definition["partitions_count"],
        )
    )


# -- the copy ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frame:
    """A snapshot that several sessions share, and the blocks that the table had then."""

    snapshot: str
    filenode: int
    blocks: int

    @property
    def chunks(self) -> list[int]:
        """First block of each chunk."""
        return list(range(0, self.blocks, CHUNK_BLOCKS))


@asynccontextmanager
async def frame(conn: Connection, table: str) -> AsyncIterator[Frame]:
    """Exports a snapshot of the node for as long as the block runs.

    The snapshot is kept without a lock on the table, so the application's DDL waits for one chunk at
    most. The file node tells whether blocks still mean what they meant.
    """
    filenode = await value(
        conn, "select pg_relation_filenode(shardman.find_relation(%s)::regclass)", table
    )
    async with rolled_back(conn):
        await conn.execute("begin isolation level repeatable read")
        snapshot = await value(conn, "select pg_export_snapshot()")
        blocks = await value(
            conn,
            "select pg_relation_size(shardman.find_relation(%s)::regclass)"
            " / current_setting('block_size')::int",
            table,
        )
        yield Frame(snapshot, filenode, blocks)
        await conn.execute("commit")


async def in_frame(conn: Connection, shared: Frame, query: str, *params: Any) -> Any:
    """The single row of a query in a transaction of its own with the frame's snapshot.

    Raises:
        Rewritten: the table was truncated or rewritten since.
    """
    async with rolled_back(conn):
        await conn.execute("begin isolation level repeatable read")
        await conn.execute(
            sql.SQL("set transaction snapshot {}").format(sql.Literal(shared.snapshot))
        )
        try:
            row = await (await conn.execute(query.encode(), params)).fetchone()
        except psycopg.Error as error:
            if error.sqlstate == "SHM03":
                raise Rewritten from error
            raise
        await conn.execute("commit")
    return row


@step("conversion_copy")
@dataclass(frozen=True)
class ConversionCopy:
    """Copies the rows of one snapshot, taken when the log was already kept, into the shadow."""

    node: int
    relation: str
    definition: dict[str, Json]

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
        # Who has an older snapshot would not see what was copied: see the fence.
        cur = await conn.execute(
            "select clock_timestamp(), pg_snapshot_xmax(pg_current_snapshot())::xid::text"
        )
        run.memory["copied_at"], run.memory["copied_xid"] = await cur.fetchone() or (None, None)
        run.memory["rows"] = rows

    async def undo(self, run: Run) -> None:
        """The rows go with the shadow, the replay function with the log."""


@step("conversion_index")
@dataclass(frozen=True)
class ConversionIndex:
    """Keys, indexes and statistics of the data tables, built when their rows are in."""

    node: int
    relation: str
    definition: dict[str, Json]

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        definition = Jsonb(self.definition)

        async def build(session: Connection, part: str) -> None:
            await session.execute("select shardman.make_data_indexes(%s, %s)", (part, definition))
            data = await find(session, await data_table(session, part))
            if data is not None:
                await session.execute(sql.SQL("analyze {}").format(data))

        async with sessions(run, self.node) as builders:
            await for_each(builders, await parts_of(conn, self.definition), build)

    async def undo(self, run: Run) -> None:
        """They go with their tables."""


# -- catching up ------------------------------------------------------------------------------------


async def replay(conn: Connection, run: Run, table: str) -> int:
    """Brings the shadow up to date with all that is committed; returns how much there was.

    The table is locked before the snapshot is taken: a truncation that commits in between would leave
    its rows visible in neither.
    """
    found = await find(conn, table)
    if found is None:
        raise UserError(f"{table} is gone", "It was dropped or renamed meanwhile")
    async with rolled_back(conn):
        await conn.execute("begin isolation level repeatable read")
        await conn.execute(sql.SQL("lock table only {} in access share mode").format(found))
        cur = await conn.execute(
            sql.SQL("select {}()").format(sql.Identifier("shardman", f"replay_c{run.cmd_id}"))
        )
        row = await cur.fetchone()
        await conn.execute("commit")
    return int(row[0]) if row else 0


async def catch_up(run: Run, conn: Connection, table: str) -> None:
    """Replays until little is left.

    Raises:
        UserError: the application writes faster than this can follow.
    """
    for number in range(MAX_ROUNDS):
        begun = time.monotonic()
        entries = await replay(conn, run, table)
        if entries == 0 or time.monotonic() - begun < SHORT_S + number * LONGER_S:
            await run.waits_for(None)
            return
        await run.waits_for(f"{entries} writes to {table} to be caught up with")
    raise UserError(
        f"{table} is written to faster than its partitions can follow",
        "Try again when there is less to do",
    )


@step("conversion_catch_up")
@dataclass(frozen=True)
class ConversionCatchUp:
    """Follows the writes that came during copy and index build."""

    node: int
    relation: str
    definition: dict[str, Json]

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        async with explained(conn, self.relation, self.definition):
            await catch_up(run, conn, self.relation)

    async def undo(self, run: Run) -> None:
        """Nothing was made."""


# -- proof ------------------------------------------------------------------------------------------


@dataclass
class Content:
    """Number of rows and a hash that does not depend on their order."""

    rows: int = 0
    hash: int = 0

    def add(self, row: tuple[int, Any]) -> None:
        self.rows += int(row[0])
        self.hash += int(row[1])


@step("conversion_verify")
@dataclass(frozen=True)
class ConversionVerify:
    """Compares table and shadow under one snapshot, leaving out the keys that are in the log: those
    are read from the table again before the switch."""

    node: int
    relation: str
    definition: dict[str, Json]

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        for _ in range(MAX_COPIES):
            try:
                async with explained(conn, self.relation, self.definition):
                    await catch_up(run, conn, self.relation)
                    table, shadow = await self._contents(run, conn)
            except Rewritten:
                continue
            await check_unchanged(conn, self.relation, self.definition)
            if table != shadow:
                raise UserError(
                    f"{self.relation} has {table.rows} rows and its partitions {shadow.rows},"
                    " or their contents differ",
                    "Nothing was changed; report this with the server's log",
                )
            run.memory["rows"] = table.rows
            return
        raise UserError(
            f"{self.relation} is truncated or rewritten again and again",
            "Try again when that is over",
        )

    async def _contents(self, run: Run, conn: Connection) -> tuple[Content, Content]:
        table, shadow = Content(), Content()
        async with frame(conn, self.relation) as shared, sessions(run, self.node) as readers:
            cur = await conn.execute(
                "select data::oid from shardman.shadow_tables(%s)",
                (names.shadow(self.relation, run.cmd_id),),
            )
            datas = [int(r[0]) for r in await cur.fetchall()]

            async def read_table(session: Connection, first: int) -> None:
                table.add(
                    await in_frame(
                        session,
                        shared,
                        "select rows, hash from shardman.chunk_content(%s, %s, %s, %s, %s)",
                        *(self.relation, run.cmd_id, shared.filenode, first, CHUNK_BLOCKS),
                    )
                )

            async def read_shadow(session: Connection, data: int) -> None:
                shadow.add(
                    await in_frame(
                        session,
                        shared,
                        "select rows, hash from shardman.shadow_content(%s::oid::regclass, %s, %s)",
                        *(data, self.relation, run.cmd_id),
                    )
                )

            await for_each(readers, shared.chunks, read_table)
            await for_each(readers, datas, read_shadow)
        return table, shadow

    async def undo(self, run: Run) -> None:
        """Nothing was made."""
