"""The instant in which a plain table becomes a sharded one.

Under an ACCESS EXCLUSIVE lock on the table nobody reads or writes it. What is left in the log is
replayed, so shadow and table are equal; then they exchange their names. The transaction is *prepared*:
its locks outlive every crash, so nothing can slip in before the metadata has decided.

Statements that wait for the lock find the sharded table when they get it: PostgreSQL looks a name up
again after it has waited for a lock, and plans anew what it had prepared. A transaction with a snapshot
older than the copy would see an empty table; the cut-over gives way to such ones and says so.

A crash before the transaction is prepared leaves nothing of it: shadow and log are as they were, and go when
the command is undone. Afterwards the table stays locked until the exchange of names is rolled back or
committed (steps/prepared.py). The plain table is dropped behind the commit only (aside.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from shardman import names
from shardman.errors import Code, UserError
from shardman.pg.connection import Connection
from shardman.steps.base import Made, OfTable, Run, UndoableStep, step
from shardman.steps.catalog import value
from shardman.steps.conversion.catch_up import catch_up
from shardman.steps.conversion.definition import check_unchanged, explained, parts_of
from shardman.steps.locks import Busy, Deadline, begin_locked, patiently, rolled_back
from shardman.steps.prepared import end_prepared, prepare
from shardman.steps.references import held

_Work = Callable[[Connection], Awaitable[None]]


async def _cut_over(run: Run, target: Conversion, before: _Work, under_lock: _Work) -> None:
    """Tries until the switch is prepared.

    Args:
        before: what makes the work under the lock short; runs before each try.
        under_lock: makes the shadow equal to the table.
    """
    conn = await run.node(target.node)
    keys: Any = target.definition.get("foreign_keys", ())
    referred: list[str] = [key["to"] for key in keys]

    async def attempt(deadline: Deadline) -> None:
        state = await _state(conn, target)
        await _still_the_same(conn, target)
        await before(conn)
        async with run.cut_over_lock, held(run, referred, [conn]):
            run.figures.cut_over.begin()
            await _prepare(run, conn, target, deadline, state, under_lock)

    await patiently(run, attempt)


async def _prepare(
    run: Run,
    conn: Connection,
    target: Conversion,
    deadline: Deadline,
    state: str,
    under_lock: _Work,
) -> None:
    """Raises Busy when the lock could not be had in time or somebody's snapshot is too old."""
    async with rolled_back(conn):
        await begin_locked(conn, [target.relation], "access exclusive", deadline, target.node)
        if whom := await _old_snapshots(run, conn):
            raise Busy(f"{whom} on node {target.node}, whose snapshot is older than the partitions")
        try:
            if await _state(conn, target) != state:
                raise Busy("somebody who is changing the table")
            await under_lock(conn)
            await conn.execute(
                "select shardman.conversion_swap(%s, %s, %s, %s)",
                (
                    target.relation,
                    names.shadow(target.relation, run.cmd_id),
                    names.set_aside(target.relation, run.cmd_id),
                    Jsonb(target.definition),
                ),
            )
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            raise Busy(f"a lock on node {target.node}") from None
        await prepare(run, target.relation, {target.node: conn})


async def _old_snapshots(run: Run, conn: Connection) -> str | None:
    """Whoever would not see the rows of the partitions. Idle ones have a snapshot only when they keep
    it to their end; those at work get another one, unless they began before the copy was ready."""
    copied = run.handed.copied
    whom: str | None = await value(
        conn,
        "select coalesce(shardman.old_snapshots(), shardman.snapshots_before(%s, %s::text::xid))",
        copied and copied.at,
        copied and copied.xid,
    )
    return whom


async def _state(conn: Connection, target: Conversion) -> str:
    """Changes whenever the table's definition does; `_still_the_same` says in what."""
    return str(await value(conn, "select shardman.catalog_state(%s)", target.relation))


async def _still_the_same(conn: Connection, target: Conversion) -> None:
    """Raises UserError when somebody has changed the table, or made what depends on it, since it was
    described."""
    await check_unchanged(conn, target.relation, target.definition)
    if ahead := await value(
        conn, "select shardman.overrun_sequences(%s)", Jsonb(target.definition)
    ):
        raise UserError(
            f"{ahead} went on too far while the table was being sharded",
            "Try again",
            code=Code.TOO_BUSY,
        )
    if obstacle := await value(
        conn,
        "select o ->> 'what' from shardman.dependent_obstacles(shardman.find_relation(%s)) as o",
        target.relation,
    ):
        raise UserError(
            obstacle,
            "Drop them, and make them again once the table is sharded",
            code=Code.TABLE_UNSUITABLE,
        )


@dataclass(frozen=True)
class Conversion(OfTable, UndoableStep):
    """What both ways of switching have in common."""

    leaves = "what was prepared, with its locks"
    waits = "statements on the table"
    waits_until = "commit_prepared"
    clears = "the next shardlord rolls it back and begins anew"

    def makes(self) -> Made:
        return Made(f"the prepared cut-over of {self.relation} on node {self.node}")

    async def undo(self, run: Run) -> None:
        await end_prepared(run, self.node, "rollback")


@step("conversion_cut_over")
@dataclass(frozen=True)
class ConversionCutOver(Conversion):
    """Replays the rest of the log under the lock."""

    async def do(self, run: Run) -> None:
        async def before(conn: Connection) -> None:
            async with explained(conn, self.relation, self.definition):
                await catch_up(run, conn, self.relation)

        async def under_lock(conn: Connection) -> None:
            await conn.execute(
                sql.SQL("select {}()").format(sql.Identifier("shardman", f"replay_c{run.cmd_id}"))
            )

        await _cut_over(run, self, before, under_lock)


@step("convert_at_once")
@dataclass(frozen=True)
class ConvertAtOnce(Conversion):
    """Copies a table whose rows have no key, compares and builds indexes, all under the lock."""

    async def do(self, run: Run) -> None:
        async def before(conn: Connection) -> None:
            """Nothing shortens it."""

        async def under_lock(conn: Connection) -> None:
            run.figures.rows = await value(
                conn,
                "select shardman.copy_at_once(%s, %s)",
                self.relation,
                names.shadow(self.relation, run.cmd_id),
            )
            for part in await parts_of(conn, self.definition):
                await conn.execute(
                    "select shardman.make_data_indexes(%s, %s)", (part, Jsonb(self.definition))
                )

        await _cut_over(run, self, before, under_lock)
