"""The instant in which a plain table becomes a sharded one, and what comes behind it.

Under an ACCESS EXCLUSIVE lock on the table nobody reads or writes it. What is left in the log is
replayed, so shadow and table are equal; then they exchange their names. The transaction is *prepared*:
its locks outlive every crash, so nothing can slip in before the metadata has decided.

Statements that wait for the lock find the sharded table when they get it: PostgreSQL looks a name up
again after it has waited for a lock, and plans anew what it had prepared. A transaction with a snapshot
older than the copy would see an empty table; the fence gives way to such ones and says so.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from shardman import names
from shardman.errors import UserError
from shardman.model.plan import Json
from shardman.steps.base import Connection, Run, step
from shardman.steps.catalog import relation as find
from shardman.steps.catalog import value
from shardman.steps.convergence import end_prepared
from shardman.steps.conversion import (
    catch_up,
    check_unchanged,
    explained,
    parts_of,
    stop_log,
)
from shardman.steps.locks import Busy, Deadline, begin_locked, patiently, rolled_back
from shardman.steps.moves import RunMoves

_Work = Callable[[Connection], Awaitable[None]]


async def _fence(run: Run, target: Conversion, before: _Work, under_lock: _Work) -> None:
    """Tries until the switch is prepared.

    Args:
        before: what makes the work under the lock short; runs before each try.
        under_lock: makes the shadow equal to the table.
    """
    conn = await run.node(target.node)
    run.memory["tries"] = 0

    async def attempt(deadline: Deadline) -> None:
        state = await _state(conn, target)
        await _still_the_same(conn, target)
        await before(conn)
        async with run.fence:
            run.memory["fence_begun"] = time.monotonic()
            run.memory["tries"] += 1
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
    gid = names.prepared(run.cluster_id, run.cmd_id, run.attempt, target.node)
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
        await conn.execute(sql.SQL("prepare transaction {}").format(sql.Literal(gid)))


async def _old_snapshots(run: Run, conn: Connection) -> str | None:
    """Whoever would not see the rows of the partitions. Idle ones have a snapshot only when they keep
    it to their end; those at work get another one, unless they began before the copy was ready."""
    whom: str | None = await value(
        conn,
        "select coalesce(shardman.old_snapshots(), shardman.snapshots_before(%s, %s::text::xid))",
        run.memory.get("copied_at"),
        run.memory.get("copied_xid"),
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
        raise UserError(f"{ahead} went on too far while the table was being sharded", "Try again")
    if obstacle := await value(
        conn,
        "select o ->> 'what' from shardman.dependent_obstacles(shardman.find_relation(%s)) as o",
        target.relation,
    ):
        raise UserError(obstacle, "Drop them, and make them again once the table is sharded")


@dataclass(frozen=True)
class Conversion:
    """What both ways of switching have in common."""

    node: int
    relation: str
    definition: dict[str, Json]

    async def undo(self, run: Run) -> None:
        await end_prepared(run, self.node, "rollback")


@step("conversion_fence")
@dataclass(frozen=True)
class ConversionFence(Conversion):
    """Replays the rest of the log under the lock."""

    async def do(self, run: Run) -> None:
        async def before(conn: Connection) -> None:
            async with explained(conn, self.relation, self.definition):
                await catch_up(run, conn, self.relation)

        async def under_lock(conn: Connection) -> None:
            await conn.execute(
                sql.SQL("select {}()").format(sql.Identifier("shardman", f"replay_c{run.cmd_id}"))
            )

        await _fence(run, self, before, under_lock)


@step("convert_at_once")
@dataclass(frozen=True)
class ConvertAtOnce(Conversion):
    """Copies a table whose rows have no key, compares and builds indexes, all under the lock."""

    async def do(self, run: Run) -> None:
        async def before(conn: Connection) -> None:
            """Nothing shortens it."""

        async def under_lock(conn: Connection) -> None:
            run.memory["rows"] = await value(
                conn,
                "select shardman.copy_at_once(%s, %s)",
                self.relation,
                names.shadow(self.relation, run.cmd_id),
            )
            for part in await parts_of(conn, self.definition):
                await conn.execute(
                    "select shardman.make_data_indexes(%s, %s)", (part, Jsonb(self.definition))
                )

        await _fence(run, self, before, under_lock)


@step("record_table")
@dataclass(frozen=True)
class RecordTable:
    """The table is sharded from now on; all its partitions lie where it lay."""

    node: int
    relation: str
    definition: dict[str, Json]
    create_sql: str

    async def do(self, run: Run) -> None:
        conn = await run.node(0)
        expr, count = self.definition["expr"], self.definition["partitions_count"]
        await conn.execute(
            "insert into shardman.tables"
            " (relation, expr, partitions_count, create_sql, initial_node, definition)"
            " values (%s, %s, %s, %s, %s, %s)",
            (self.relation, expr, count, self.create_sql, self.node, Jsonb(self.definition)),
        )
        await conn.execute(
            "insert into shardman.partitions (part_name, owner, relation)"
            " select shardman.suffixed(%(relation)s, '_' || k), %(node)s, %(relation)s"
            " from generate_series(0, %(count)s - 1) as k",
            {"relation": self.relation, "node": self.node, "count": count},
        )

    async def undo(self, run: Run) -> None:
        """The switch is the point of no return."""


@step("drop_aside")
@dataclass(frozen=True)
class DropAside:
    """Drops the plain table, whose rows are proven to be in the partitions, and its log."""

    node: int
    relation: str

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        name = self._aside(run)
        if "rows" in run.memory:
            run.say(f"Copied {run.memory['rows']} rows and found them equal.")
        await stop_log(run, self.node)
        if (found := await find(conn, name)) is not None:
            try:
                await conn.execute(sql.SQL("drop table {}").format(found))
            except psycopg.errors.DependentObjectsStillExist as error:
                run.say(f"The plain table is left as {name}: {error.diag.message_detail}")

    def _aside(self, run: Run) -> str:
        schema, _ = names.unquote(self.relation)
        return names.quoted(schema, names.set_aside(self.relation, run.cmd_id))

    async def undo(self, run: Run) -> None:
        """A finish step goes only forward."""


@step("spread_new_table")
@dataclass(frozen=True)
class SpreadNewTable:
    """Moves partitions off the table's node.

    It names that node, so that it waits for whatever is left to do there: a move cannot begin on a
    server on which the switch is prepared and not committed.
    """

    node: int
    relation: str

    async def do(self, run: Run) -> None:
        await RunMoves(self.relation).do(run)

    async def undo(self, run: Run) -> None:
        """A finish step goes only forward."""
