"""The steps of add_foreign_key and drop_foreign_key: see sql/routines/56_references_changed.sql."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg.types.json import Jsonb

from shardman.errors import Code, Temporary, UserError
from shardman.model.plan import Json
from shardman.pg.bounded import unhurried
from shardman.pg.connection import Connection
from shardman.steps.base import (
    FinishStep,
    Made,
    PrepareStep,
    Run,
    Scope,
    SwitchStep,
    UndoableStep,
    step,
)
from shardman.steps.catalog import data_table, is_attached, value
from shardman.steps.convergence import await_metadata
from shardman.steps.locks import LIMIT_S, Deadline, patiently, rolled_back
from shardman.steps.references import held

#: How long a node may take to hear that a foreign key is gone. It would make it anew otherwise.
HEAR_S = 10.0
#: How long a foreign key that goes waits for writers of the shared table, who pause now and then.
DROP_S = 60.0


@step("add_reference")
@dataclass(frozen=True)
class AddReference(UndoableStep):
    """A foreign key on the data tables of one node, one after the other, not validated: each under a lock of a
    moment. What takes over from one of them meanwhile gets it when it is recorded."""

    node: int
    relation: str
    parts: list[str]
    item: dict[str, Json]

    def scope(self) -> Scope:
        return Scope.of([self.node], self.parts)

    def makes(self) -> Made:
        return Made(
            f"the foreign key {self.item['name']} of {self.relation} on node {self.node}",
            shared=True,
        )

    async def do(self, run: Run) -> None:
        # Only what it knows as shared, or as colocated, it lets a data table refer to.
        if not await await_metadata(run, self.node, HEAR_S):
            raise UserError(
                f"node {self.node} does not have the newest metadata",
                "Submit it again when it has caught up",
                code=Code.NODE_BEHIND,
            )
        conn = await run.node(self.node)
        for part in self.parts:
            if await is_attached(conn, await data_table(conn, part)):
                await self._add(run, conn, part)

    async def _add(self, run: Run, conn: Connection, part: str) -> None:
        definition = Jsonb({"relation": self.relation, "foreign_keys": [self.item]})

        async def attempt(deadline: Deadline) -> None:
            async with held(run, _shared(self.item), [conn]), rolled_back(conn):
                await _begin(conn, deadline)
                await conn.execute("select shardman.add_references(%s, %s)", (part, definition))
                await conn.execute("commit")

        try:
            await patiently(run, attempt)
        except psycopg.errors.ProgrammingError as error:
            # What its columns are, and what it refers to, only the node knows.
            raise UserError(
                f"the foreign key cannot be made: {error.diag.message_primary}",
                error.diag.message_hint or error.diag.message_detail or "Change it",
                code=Code.TABLE_UNSUITABLE,
            ) from error

    async def undo(self, run: Run) -> None:
        conn = await run.node(self.node)
        if not await value(
            await run.node(0),
            "select exists (select from shardman.tables t"
            " cross join jsonb_array_elements(t.definition -> 'foreign_keys') f"
            " where t.relation = %s and f ->> 'name' = %s)",
            self.relation,
            self.item["name"],
        ):
            for part in self.parts:
                await _remove(run, conn, part, str(self.item["name"]), DROP_S)


def _shared(item: dict[str, Json]) -> Sequence[str]:
    """The shared table that a foreign key refers to. In a group data tables refer to data tables."""
    return () if "to_columns" in item else (str(item["to"]),)


async def _begin(conn: Connection, deadline: Deadline) -> None:
    if conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
        await conn.execute("begin")
    await conn.execute("select set_config('lock_timeout', %s, true)", (f"{deadline.left_ms()}ms",))


async def _remove(run: Run, conn: Connection, part: str, name: str, limit_s: float) -> None:
    found = await value(
        conn,
        "select case when shardman.is_data_table(shardman.metadata_name(o.confrelid)) then array[]::text[]"
        " else array[shardman.metadata_name(o.confrelid)] end from pg_constraint o"
        " where o.conrelid = shardman.find_relation(shardman.data_table(%s))"
        " and o.contype = 'f' and o.conname = %s",
        part,
        name,
    )
    if found is None:
        return

    async def attempt(deadline: Deadline) -> None:
        async with held(run, found, [conn]), rolled_back(conn):
            await _begin(conn, deadline)
            await conn.execute("select shardman.remove_reference(%s, %s)", (part, name))
            await conn.execute("commit")

    await patiently(run, attempt, limit_s=limit_s)


@step("validate_reference")
@dataclass(frozen=True)
class ValidateReference(PrepareStep):
    """Reads all data tables, beside readers and writers.

    Args:
        places: nodes, each with the partitions whose primaries it has.
    """

    relation: str
    constraint: str
    places: list[tuple[int, list[str]]]

    def scope(self) -> Scope:
        return Scope.of(
            [node for node, _ in self.places], [p for _, parts in self.places for p in parts]
        )

    async def do(self, run: Run) -> None:
        try:
            await asyncio.gather(*(self._validate(run, n, parts) for n, parts in self.places))
        except psycopg.errors.ForeignKeyViolation as error:
            await self._refuse(run, error)

    async def _validate(self, run: Run, node: int, parts: list[str]) -> None:
        async with run.extra_session(node) as conn:
            for part in parts:

                async def attempt(deadline: Deadline, part: str = part) -> None:
                    async with rolled_back(conn):
                        await _begin(conn, deadline)
                        with unhurried(conn):
                            await conn.execute(
                                "select shardman.validate_reference(%s, %s)",
                                (part, self.constraint),
                            )
                        await conn.execute("commit")

                await patiently(run, attempt)

    async def _refuse(self, run: Run, error: psycopg.Error) -> None:
        """Raises UserError with how many rows there are, and one of them."""
        rows, example = 0, None
        for node, parts in self.places:
            async with run.extra_session(node) as conn:
                for part in parts:
                    with unhurried(conn):
                        cur = await conn.execute(
                            "select * from shardman.breaking_rows(%s, %s)", (part, self.constraint)
                        )
                    for count, found in await cur.fetchall():
                        rows, example = rows + count, example or found
        raise UserError(
            f"{rows} rows of {self.relation} refer to nothing, such as {example}"
            if rows
            else str(error.diag.message_detail),
            "Correct them, or insert what they refer to, and submit it again",
            code=Code.TABLE_UNSUITABLE,
        ) from error


@step("record_reference")
@dataclass(frozen=True)
class RecordReference(SwitchStep):
    """A sharded table has a foreign key from now on; item is None: it has it no more."""

    relation: str
    constraint: str
    item: dict[str, Json] | None

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        conn = await run.node(0)
        await conn.execute(
            "select shardman.record_reference(%s, %s, %s)",
            (self.relation, self.constraint, None if self.item is None else Jsonb(self.item)),
        )


@step("drop_reference")
@dataclass(frozen=True)
class DropReference(FinishStep):
    """Takes a foreign key from the data tables of a node, which needs what they refer to for a moment alone."""

    leaves = "the foreign key on some data tables, where it still holds"

    node: int
    parts: list[str]
    constraint: str

    def scope(self) -> Scope:
        return Scope.of([self.node], self.parts)

    async def do(self, run: Run) -> None:
        if not await await_metadata(run, self.node, HEAR_S):
            raise Temporary(f"node {self.node} has not heard of it yet", code=Code.NODE_BEHIND)
        conn = await run.node(self.node)
        for part in self.parts:
            await _remove(run, conn, part, self.constraint, LIMIT_S)
