"""Steps on the tables of a partition: data tables, routes, replica identity."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from shardman import names
from shardman.pg.bounded import unhurried
from shardman.pg.connection import Connection
from shardman.steps.base import (
    FinishStep,
    Made,
    PartBetween,
    PrepareStep,
    Run,
    Scope,
    Together,
    UndoableStep,
    step,
)
from shardman.steps.catalog import data_table, is_attached, need_relation, relation, value, written
from shardman.steps.locks import (
    LIMIT_S,
    Deadline,
    begin_locked,
    ddl_held_off,
    execute_patiently,
    patiently,
    rolled_back,
)
from shardman.steps.references import held, referred_to
from shardman.steps.replicas import drop_detached

_REFERS = (
    "select exists (select from pg_constraint"
    " where conrelid = shardman.find_relation(%s) and contype = 'f')"
)
#: Sorting in memory makes an index build faster; one build at a time on a node.
BUILD_MEMORY_KB = 256 * 1024
#: Bytes of a copy whose indexes are built within a moment: DDL waits for no longer ones.
SOON_INDEXED = 16 * 1024 * 1024


@step("data_table")
@dataclass(frozen=True)
class DataTable(UndoableStep):
    """An empty, detached data table, still without keys: rows are copied in twice as fast."""

    concurrent_with = frozenset({"publication"})

    node: int
    part: str

    def scope(self) -> Scope:
        return Scope.of([self.node], [self.part])

    def makes(self) -> Made:
        return Made(f"the data table of {self.part} on node {self.node}", shared=True)

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        async with ddl_held_off(run):
            await conn.execute("select shardman.make_data_table(%s, keys => false)", (self.part,))

    async def undo(self, run: Run) -> None:
        # Attached, it is somebody's primary; ours never was, because the cut-over is undone before. One
        # that was there before us is found by `CheckMove`; one that came in between has no such check.
        await drop_detached(run, await run.node(self.node), self.node, self.part)


@step("data_indexes")
@dataclass(frozen=True)
class DataIndexes(PrepareStep):
    """All keys and indexes, which were left out while rows were copied."""

    leaves = "indexes; they go with the table"

    node: int
    part: str

    def scope(self) -> Scope:
        return Scope.of([self.node], [self.part])

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        rows = "select shardman.table_bytes(shardman.data_table(%s))"
        brief = await value(conn, rows, self.part) <= SOON_INDEXED
        async with ddl_held_off(run) if brief else nullcontext(), conn.transaction():
            await conn.execute(
                "select set_config('maintenance_work_mem', %s, true) from pg_settings"
                " where name = 'maintenance_work_mem' and setting::bigint < %s",
                (f"{BUILD_MEMORY_KB}kB", BUILD_MEMORY_KB),
            )
            with unhurried(conn):
                await conn.execute("select shardman.make_data_indexes(%s)", (self.part,))
            await self._tune(run, conn)

    async def _tune(self, run: Run, conn: Connection) -> None:
        """Storage parameters are what the primary's are: those may have changed since the command began."""
        owner = await value(
            await run.node(0),
            "select owner from shardman.partitions where part_name = %s and prv is null",
            self.part,
        )
        if owner not in (None, self.node):
            tuning = await value(
                await run.node(owner), "select shardman.tuning_of_data(%s)", self.part
            )
            await conn.execute("select shardman.tune_data(%s, %s)", (self.part, Jsonb(tuning)))


@step("statistics")
@dataclass(frozen=True)
class Statistics(PrepareStep):
    """What the planner of a copy's node needs to know, before anybody asks it."""

    leaves = "statistics; they go with the table"

    concurrent_with = frozenset({"verify_copy"})

    node: int
    part: str

    def scope(self) -> Scope:
        return Scope.of([self.node], [self.part])

    async def do(self, run: Run) -> None:
        async with run.extra_session(self.node) as conn:
            table = await need_relation(conn, await data_table(conn, self.part))
            with unhurried(conn):
                await conn.execute(sql.SQL("analyze {}").format(table))


@step("replica_identity")
@dataclass(frozen=True)
class ReplicaIdentity(UndoableStep):
    """Lets updates and deletes of a table without a key be replicated: by whole rows.

    Args:
        former: what to go back to, ``default`` or ``nothing``.
    """

    node: int
    part: str
    former: str

    def scope(self) -> Scope:
        return Scope.of([self.node], [self.part])

    def makes(self) -> Made:
        return Made(f"the replica identity of {self.part} on node {self.node}", shared=True)

    async def do(self, run: Run) -> None:
        await self._set(run, "full", math.inf)

    async def undo(self, run: Run) -> None:
        conn = await run.node(self.node)
        # What is published needs it: without it the application's updates would fail.
        if not await value(
            conn, "select shardman.is_published(shardman.data_table(%s))", self.part
        ):
            await self._set(run, self.former, LIMIT_S)

    async def _set(self, run: Run, identity: str, limit_s: float) -> None:
        conn = await run.node(self.node)
        name = await data_table(conn, self.part)
        table = await relation(conn, name)
        if table is not None:
            change = sql.SQL("alter table {} replica identity {}")
            statement = change.format(table, sql.SQL(identity))
            await execute_patiently(run, conn, self.node, name, statement, limit_s=limit_s)


@step("fresh_route")
@dataclass(frozen=True)
class FreshRoute(UndoableStep):
    """On the source, the route that the cut-over puts in the data table's place.

    It stands on a foreign server of its own. A session of the source may be in a transaction that used
    its connection to the destination before the move: the snapshot there is older than the moved copy
    and would miss its rows. Through a server of its own it gets a new connection, so a new snapshot.
    `shardman.reconcile` exchanges it for a plain route once no such transaction is left.
    """

    concurrent_with = frozenset({"verify_copy", "statistics"})

    part: str
    src: int
    dest: int

    def scope(self) -> Scope:
        return Scope.of([self.src], [self.part])

    def makes(self) -> Made:
        return Made(f"a route to node {self.dest} for {self.part} on node {self.src}")

    async def do(self, run: Run) -> None:
        server = names.fresh_server(self.dest, run.cmd_id)
        # In the command's own session writers may be held meanwhile, until the channels are empty.
        async with run.extra_session(self.src) as conn:
            await conn.execute("select shardman.make_fresh_server(%s, %s)", (self.dest, server))
            await conn.execute("select shardman.make_route(%s, %s)", (self.part, server))

    async def undo(self, run: Run) -> None:
        conn = await run.node(self.src)
        name = str(await value(conn, "select shardman.route_table(%s)", self.part))
        route = await relation(conn, name)
        if route is not None and not await is_attached(conn, name):
            await conn.execute(sql.SQL("drop foreign table {}").format(route))
        server = names.fresh_server(self.dest, run.cmd_id)
        await conn.execute("select shardman.drop_server(%s, with_tables => true)", (server,))


@step("end_fresh_route")
@dataclass(frozen=True)
class EndFreshRoute(PartBetween, FinishStep):
    """Drops the foreign server of `FreshRoute`. While a transaction older than the move is open the
    route stays on it; then the source's own reconciliation drops it later."""

    leaves = "the foreign server of the route, which works"

    async def do(self, run: Run) -> None:
        conn = await run.node(self.src)
        server = names.fresh_server(self.dest, run.cmd_id)
        await conn.execute("select shardman.drop_unused_server(%s)", (server,))


@step("drop_old_copy")
@dataclass(frozen=True)
class DropOldCopy(Together, FinishStep):
    """Drops the source's copy: the cut-over has proven that the destination has every row of it. Of
    partitions that go together first all foreign keys: they may refer to one another.

    It needs the destination, on which it does nothing: where that has not committed its part of the cut-over,
    this waits.
    """

    leaves = "the old copy, out of use and renamed"

    async def do(self, run: Run) -> None:
        for part in self.parts:
            await self._drop_references(run, part, self._aside(run, part))
        for part in self.parts:
            await self._drop(run, part)

    def _aside(self, run: Run, part: str) -> str:
        return names.quoted(names.unquote(part)[0], names.set_aside(part, run.cmd_id))

    async def _drop(self, run: Run, part: str) -> None:
        conn = await run.node(self.src)
        schema, aside = names.unquote(part)[0], names.set_aside(part, run.cmd_id)
        name = self._aside(run, part)
        if (table := await relation(conn, name)) is None:
            return
        drop = sql.SQL("drop table {}").format(table)
        try:
            await execute_patiently(run, conn, self.src, name, drop, limit_s=LIMIT_S)
        except psycopg.errors.DependentObjectsStillExist as error:
            run.say(
                f"The old copy is left as {aside} on node {self.src}: {error.diag.message_detail}"
            )
            run.figures.keep(self.src, [await written(conn, schema, aside)])

    async def _drop_references(self, run: Run, part: str, name: str) -> None:
        """They have a say in what is deleted from shared tables."""
        conn = await run.node(self.src)
        if await relation(conn, name) is None or not await value(conn, _REFERS, name):
            return
        drop = "select shardman.drop_references(shardman.find_relation(%s))"

        async def attempt(deadline: Deadline) -> None:
            async with held(run, referred, [conn]), rolled_back(conn):
                await begin_locked(conn, [name], "access exclusive", deadline, self.src)
                await conn.execute(drop, (name,))
                await conn.execute("commit")

        referred = await referred_to(run, [part])
        await patiently(run, attempt, limit_s=LIMIT_S)
