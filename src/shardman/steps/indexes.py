"""The steps of build_index, and of indexes that a table has had: see sql/routines/96_whole_indexes.sql."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field

import psycopg
from psycopg.types.json import Jsonb

from shardman.errors import Code, Temporary, UserError
from shardman.model.plan import Json
from shardman.pg.bounded import unhurried
from shardman.pg.connection import Connection
from shardman.steps.base import FinishStep, Made, Run, Scope, SwitchStep, UndoableStep, step
from shardman.steps.catalog import value
from shardman.steps.locks import LIMIT_S, Deadline, patiently, rolled_back


@step("build_index")
@dataclass(frozen=True)
class BuildIndexes(UndoableStep):
    """An index on all copies of one node, one after the other: whatever else it does, the node builds one at a
    time.

    Args:
        others: the other nodes. Whoever takes it back takes the table's own entry away everywhere: one that is
            on some nodes only could neither be built nor dropped.
    """

    concurrent_with = frozenset({"build_index"})

    node: int
    relation: str
    index: str
    parts: list[str]
    others: list[int] = field(default_factory=list)

    def scope(self) -> Scope:
        return Scope.of([self.node], self.parts)

    def makes(self) -> Made:
        return Made(f"the index {self.index} of {self.relation} on node {self.node}", shared=True)

    async def do(self, run: Run) -> None:
        async with run.extra_session(self.node) as conn:
            for part in self.parts:
                cur = await conn.execute(
                    "select * from shardman.index_to_build(%s, %s, %s)",
                    (self.relation, part, self.index),
                )
                for build, leftover in await cur.fetchall():
                    with unhurried(conn):
                        if leftover:
                            await conn.execute(leftover.encode())
                        await self._build(conn, build)

    async def _build(self, conn: Connection, build: str) -> None:
        try:
            await conn.execute(build.encode())
        except (psycopg.IntegrityError, psycopg.DataError, psycopg.ProgrammingError) as error:
            raise UserError(
                f"{self.index} cannot be built: {error.diag.message_primary}",
                error.diag.message_detail or "Correct the rows, and make it anew",
                code=Code.TABLE_UNSUITABLE,
            ) from error

    async def undo(self, run: Run) -> None:
        async with run.extra_session(self.node) as conn:
            for part in self.parts:
                drop = await value(conn, "select shardman.index_to_drop(%s, %s)", part, self.index)
                if drop:
                    with unhurried(conn):
                        await conn.execute(drop.encode())
        if not run.again:
            await self._drop_entry(run, self.node)
            for node in self.others:
                # Its own step does it, or has not begun.
                with suppress(psycopg.OperationalError, UserError, Temporary):
                    await self._drop_entry(run, node)

    async def _drop_entry(self, run: Run, node: int) -> None:
        async with run.extra_session(node) as conn:
            await _briefly(
                run, conn, "select shardman.drop_begun_index(%s, %s)", self.relation, self.index
            )


async def _briefly(run: Run, conn: Connection, query: str, *params: str) -> None:
    """A statement that needs locks of the table: gives way, and comes again."""

    async def attempt(deadline: Deadline) -> None:
        async with rolled_back(conn):
            await conn.execute("begin")
            await conn.execute(
                "select set_config('lock_timeout', %s, true)", (f"{deadline.left_ms()}ms",)
            )
            await conn.execute(query.encode(), params)
            await conn.execute("commit")

    await patiently(run, attempt, limit_s=LIMIT_S)


@step("record_index")
@dataclass(frozen=True)
class RecordIndex(SwitchStep):
    """Copies that are made from now on get the index."""

    relation: str
    index: str
    item: dict[str, Json]

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        conn = await run.node(0)
        await conn.execute(
            "select shardman.record_index(%s, %s, %s)",
            (self.relation, self.index, Jsonb(self.item)),
        )


@step("whole_index")
@dataclass(frozen=True)
class WholeIndex(FinishStep):
    """The index of the table as a whole, of those that are there: nothing is built."""

    leaves = "the index on the copies, and on the table one that is not valid"

    node: int
    relation: str
    index: str

    def scope(self) -> Scope:
        return Scope.of([self.node])

    async def do(self, run: Run) -> None:
        await _briefly(
            run,
            await run.node(self.node),
            "select shardman.make_whole_index(%s, %s)",
            self.relation,
            self.index,
        )


@step("lay_indexes")
@dataclass(frozen=True)
class LayIndexes(FinishStep):
    """The indexes of a table that was sharded, on its first node, made of those of its partitions."""

    leaves = "some indexes on the partitions only"
    waits = "writers to the table, for milliseconds"
    waits_until = "lay_indexes"

    node: int
    relation: str
    items: list[Json]

    def scope(self) -> Scope:
        return Scope.of([self.node])

    async def do(self, run: Run) -> None:
        # The metadata may not have reached the node yet.
        query, items = "select shardman.lay_whole_indexes(%s, %s::jsonb)", json.dumps(self.items)
        await _briefly(run, await run.node(self.node), query, self.relation, items)
