"""Steps that bring a copy which was left behind up to date without copying it anew.

Both sides sort their rows into buckets by a hash of the whole row and compare number and hash of each
bucket; only buckets that differ are copied. The comparison reads both tables once, at the snapshot from
which the copy channel begins, so what is written meanwhile comes through it.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from shardman import names
from shardman.errors import Code, Temporary, UserError
from shardman.pg import slots
from shardman.pg.bounded import unhurried
from shardman.pg.connection import Connection
from shardman.pg.copy_pipe import Pump
from shardman.steps.base import Made, PrepareStep, Run, Scope, Together, UndoableStep, step
from shardman.steps.catalog import data_table, is_attached, need_relation, need_table, value
from shardman.steps.channels.tables import leave_all
from shardman.steps.check_move import check_cleared, check_names
from shardman.steps.copy import begin_at, begin_writing, carry, copy_shape, exported
from shardman.steps.takes import refuse_stricter
from shardman.tasks import all_of

#: A power of two. With a few rows in each, a difference of a row costs few others.
BUCKETS = 4096


@step("check_resync")
@dataclass(frozen=True)
class CheckResync(PrepareStep):
    """Finds out before anything is made whether the old copy may be used.

    Args:
        src: the node of the primary; None in a journal of version 0.1.
    """

    part: str
    dest: int
    src: int | None = None

    def scope(self) -> Scope:
        return Scope.of([n for n in (self.src, self.dest) if n is not None], [self.part])

    async def do(self, run: Run) -> None:
        await check_cleared(run, self.dest)
        dest = await run.node(self.dest)
        name = await data_table(dest, self.part)
        await need_relation(dest, name)
        if await is_attached(dest, name):
            raise UserError(
                f"{name} on node {self.dest} is still in use as a primary",
                "Wait until the node has caught up with the metadata, see shardman.drift there",
                code=Code.NODE_BEHIND,
            )
        if self.src is not None:
            await check_names(run, self.src, self.dest)
            await refuse_stricter(run, self.part, self.src, self.dest)
        if feeding := await leave_all(run, self.part, self.dest, name):
            raise Temporary(
                f"{name} on node {self.dest} still belongs to {', '.join(feeding)}", code=Code.BUSY
            )


@step("sync_rows")
@dataclass(frozen=True)
class SyncRows(Together, UndoableStep):
    """Makes the slot, and makes the rows of the old copy those of its snapshot."""

    leaves = (
        "the slot, for which the primary keeps WAL, and an old copy that lacks less than before"
    )

    def makes(self) -> Made:
        return Made(f"the slot of the copy of {self.part} on node {self.src}")

    async def do(self, run: Run) -> None:
        slot = names.copy_channel(run.cluster_id, run.cmd_id)
        async with (
            run.extra_session(self.src) as source,
            run.extra_session(self.dest) as dest,
            exported(run, self.src, slot) as snapshot,
        ):
            await begin_at(source, snapshot)
            await dest.execute("begin")
            pump = Pump(source.pgconn, dest.pgconn)
            for part in self.parts:
                await self._table(run, pump, source, dest, await data_table(source, part))
            await dest.execute("commit")
            await source.execute("commit")
            run.figures.bytes = pump.bytes_done or None

    async def _table(
        self, run: Run, pump: Pump, source: Connection, dest: Connection, name: str
    ) -> None:
        await dest.execute(
            sql.SQL("lock table only {} in share row exclusive mode").format(
                await need_relation(dest, name)
            )
        )
        await begin_writing(dest, name)
        with unhurried(source), unhurried(dest):
            await self._mend(run, pump, source, dest, name)
        # Somebody may have taken the triggers away.
        await dest.execute("select shardman.make_read_only(%s)", (name,))

    async def _mend(
        self, run: Run, pump: Pump, source: Connection, dest: Connection, name: str
    ) -> None:
        here, there = await all_of(_buckets(source, name), _buckets(dest, name))
        differ = sorted(b for b in here.keys() | there.keys() if here.get(b) != there.get(b))
        if not differ:
            run.say("The old copy was equal.")
            return
        only = await _in_buckets(source, name, differ)
        out, into = await need_table(source, name), await need_relation(dest, name)
        await dest.execute(sql.SQL("delete from only {} as t where {}").format(into, only))
        columns, form = await copy_shape(source, name)
        await carry(
            run,
            pump,
            sql.SQL("copy (select {} from only {} as t where {}) to stdout (format {})")
            .format(columns, out, only, form)
            .as_bytes(),
            sql.SQL("copy {} ({}) from stdin (format {})").format(into, columns, form).as_bytes(),
        )
        run.say(f"Parts that differed from the old copy: {len(differ)} of {BUCKETS}.")

    async def undo(self, run: Run) -> None:
        # The copy stays what it was: one that nobody relies on.
        await slots.drop(await run.node(self.src), names.copy_channel(run.cluster_id, run.cmd_id))


async def _buckets(conn: Connection, name: str) -> dict[int, tuple[int, str]]:
    cur = await conn.execute(
        "select bucket, rows, hash from shardman.content_buckets(%s, %s)", (name, BUCKETS)
    )
    return {int(b): (int(rows), str(hash_)) for b, rows, hash_ in await cur.fetchall()}


async def _in_buckets(conn: Connection, name: str, buckets: list[int]) -> sql.Composed:
    """The condition by which a row, called t, is in one of the buckets; the same on every node."""
    bucket = await value(conn, "select shardman.row_bucket(%s, 't', %s)", name, BUCKETS)
    return sql.SQL("({}) = any ({})").format(sql.SQL(bucket), sql.Literal(buckets))
