"""Steps on shared tables: `sql/routines/98_shared_writes.sql` says how they are written.

A copy is made, or made right, while its table's writers wait: on the first node, for whose lock row each of
them asks, then on all others, where who has just ended on the first one ends. From then on all copies are
the same, and stay so. The metadata name the new copy before the locks are let go. Whatever dies in between: a
writer who does not know of the copy yet is refused by every node that does, so the copy is compared, and made
right, once more, and nobody has missed anything.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from shardman.errors import Code, Temporary, UserError
from shardman.model.plan import Json
from shardman.pg.bounded import unhurried
from shardman.pg.connection import Connection
from shardman.pg.copy_pipe import Pump
from shardman.steps.base import FinishStep, PrepareStep, Run, Scope, SwitchStep, step
from shardman.steps.catalog import need_relation, value
from shardman.steps.convergence import await_metadata
from shardman.steps.copy import begin_writing, carry, copy_shape
from shardman.steps.locks import Busy, Deadline, execute_patiently, patiently, rolled_back

#: How long a node may take to hear of a copy; writers wait.
HEAR_S = 5.0
#: How long the locks are tried for.
LOCKS_S = 60.0


@dataclass(frozen=True)
class OfShared:
    """Of a step on one node's copy of a shared table."""

    node: int
    relation: str

    def scope(self) -> Scope:
        return Scope.of([self.node])


@step("check_shared")
@dataclass(frozen=True)
class CheckShared(PrepareStep):
    """Makes the table and takes it back at once: what a node lacks is noticed before anything is changed."""

    node: int
    relation: str
    definition: dict[str, Json]

    def scope(self) -> Scope:
        return Scope.of([self.node])

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        async with rolled_back(conn):
            await conn.execute("begin")
            await make(conn, self.node, self.relation, self.definition)
            await conn.execute("rollback")


@step("check_all_shared")
@dataclass(frozen=True)
class CheckAllShared(PrepareStep):
    """The same of all shared tables, in this order, on a node that is being added."""

    node: int
    relations: list[str]

    def scope(self) -> Scope:
        return Scope.of([self.node])

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        async with rolled_back(conn):
            await conn.execute("begin")
            for relation in self.relations:
                await make(conn, self.node, relation, await _definition(run, relation))
            await conn.execute("rollback")


async def make(conn: Connection, node: int, relation: str, definition: dict[str, Json]) -> None:
    """Makes a copy without rows.

    Raises:
        UserError: the node lacks what it is made of.
    """
    try:
        await conn.execute("select shardman.make_shared(%s)", (Jsonb(definition),))
    except psycopg.errors.DatabaseError as error:
        if isinstance(error, psycopg.OperationalError):
            raise
        if isinstance(error, psycopg.errors.DuplicateTable):
            raise UserError(
                f"{relation} cannot be made on node {node}: {error.diag.message_primary}",
                "Rename it or drop it there",
                code=Code.NAME_TAKEN,
            ) from error
        denied = isinstance(error, psycopg.errors.InsufficientPrivilege)
        raise UserError(
            f"node {node} cannot have {relation}: {error.diag.message_primary}",
            (denied and error.diag.message_hint) or "Make what is missing on that node first",
            code=Code.PERMISSION_DENIED if denied else Code.OBJECT_MISSING,
        ) from error


@step("record_shared")
@dataclass(frozen=True)
class RecordShared(SwitchStep):
    """The table is shared from now on, and its only copy is where it lies.

    Args:
        copies: the nodes that have copies already, of a table that was shared in the transaction that made it.
    """

    node: int
    relation: str
    definition: dict[str, Json]
    copies: list[int] = field(default_factory=list)

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        lord = await run.node(0)
        await lord.execute(
            "insert into shardman.shared_tables (relation, initial_node, definition)"
            " values (%s, %s, %s::jsonb || shardman.free_lock_name(%s))"
            " on conflict (relation) do update set definition = excluded.definition",
            (self.relation, self.node, Jsonb(self.definition), self.relation),
        )
        for node in self.copies or [self.node]:
            await _record_copy(lord, self.relation, node)


async def _record_copy(lord: Connection, relation: str, node: int) -> None:
    await lord.execute(
        "insert into shardman.shared_copies (relation, node) values (%s, %s) on conflict do nothing",
        (relation, node),
    )


@step("redefine_shared")
@dataclass(frozen=True)
class RedefineShared(SwitchStep):
    """A shared table is from now on what it was found to be."""

    relation: str
    definition: dict[str, Json]

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        lord = await run.node(0)
        await lord.execute(
            "update shardman.shared_tables set definition = %s where relation = %s",
            (Jsonb(self.definition), self.relation),
        )


@step("suspend_shared")
@dataclass(frozen=True)
class SuspendShared(SwitchStep):
    """Writers to shared tables do not wait for a dead node any more. Should it still run, it can write to none
    of them: the others refuse what counts a copy that they do not."""

    node: int
    relations: list[str]

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        lord = await run.node(0)
        await lord.execute(
            "delete from shardman.shared_copies c where c.node = %s and c.relation = any (%s)"
            " and exists (select from shardman.shared_copies o"
            " where o.relation = c.relation and o.node <> c.node)",
            (self.node, self.relations),
        )


@step("forget_shared")
@dataclass(frozen=True)
class ForgetShared(SwitchStep):
    """The table is shared no longer: until the next step nobody can write to it."""

    relation: str

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        lord = await run.node(0)
        await lord.execute(
            "delete from shardman.shared_tables where relation = %s", (self.relation,)
        )


@step("share_home")
@dataclass(frozen=True)
class ShareHome(OfShared, FinishStep):
    """Gives the table its triggers, and its sequences their numbers. There is no other copy yet: who writes
    without the triggers has missed none."""

    leaves = "a plain table, which is written as before"

    async def do(self, run: Run) -> None:
        await _heard(run, self.node)
        conn = await run.node(self.node)
        await _in_line(conn)
        definition = await _definition(run, self.relation)
        statement = sql.SQL(
            "select shardman.arm_shared({}), shardman.set_shared_ranges({})"
        ).format(self.relation, Jsonb(definition))
        await execute_patiently(run, conn, self.node, self.relation, statement, limit_s=LOCKS_S)


async def _heard(run: Run, node: int) -> None:
    if not await await_metadata(run, node, HEAR_S):
        raise Temporary(f"node {node} has not heard of it yet", code=Code.NODE_BEHIND)


async def _in_line(conn: Connection) -> None:
    """Doors, road logins and rights of the table's owner."""
    await conn.execute("select shardman.reconcile()")


async def _definition(run: Run, relation: str) -> dict[str, Json]:
    lord = await run.node(0)
    found = await value(
        lord, "select definition from shardman.shared_tables where relation = %s", relation
    )
    if found is None:
        raise UserError(
            f"{relation} is not shared any more", "Nothing is to be done", code=Code.NOT_SHARED
        )
    return dict(found)


@step("share_out")
@dataclass(frozen=True)
class ShareOut(OfShared, FinishStep):
    """Gives a worker its copy, or makes the one that it has right.

    Args:
        source: the node whose copy is right; None: the first.
    """

    leaves = "a copy that is not used, or that is compared once more"
    waits = "writers to the table, while its rows are copied"
    waits_until = "share_out"

    source: int | None = None

    async def do(self, run: Run) -> None:
        definition = await _definition(run, self.relation)
        async with AsyncExitStack() as stack:
            held = await self._hold(run, stack)
            source = self.source if self.source in held else min(held)
            if source != self.node:
                async with run.extra_session(source) as out, run.extra_session(self.node) as into:
                    await self._make_right(run, out, into, definition, self.node in held)
                    changes = await value(out, "select shardman.changes_of(%s)", self.relation)
                    await into.execute("select shardman.has_changes(%s)", (Jsonb(changes),))
            await _record_copy(await run.node(0), self.relation, self.node)
            for node in {*held, self.node}:
                await _heard(run, node)
                async with run.extra_session(node) as conn:
                    await _in_line(conn)
            for conn in held.values():
                await conn.execute("commit")

    async def _hold(self, run: Run, stack: AsyncExitStack) -> dict[int, Connection]:
        """Lets writers wait; sessions on all nodes with copies, each in a transaction that holds the lock."""
        lord = await run.node(0)
        cur = await lord.execute(
            "select node from shardman.shared_copies where relation = %s order by node",
            (self.relation,),
        )
        held: dict[int, Connection] = {}
        for (node,) in await cur.fetchall():
            conn = await stack.enter_async_context(run.extra_session(node))
            await stack.enter_async_context(rolled_back(conn))

            async def attempt(
                deadline: Deadline, conn: Connection = conn, node: int = node
            ) -> None:
                await self._lock(conn, node, not held, deadline)

            await patiently(run, attempt, limit_s=LOCKS_S)
            held[node] = conn
        return held

    async def _lock(self, conn: Connection, node: int, first: bool, deadline: Deadline) -> None:
        await conn.execute("begin")
        try:
            await conn.execute(
                "select set_config('lock_timeout', %s, true)", (f"{deadline.left_ms()}ms",)
            )
            for kind in ("turn", "work") if first else ("work",):
                await conn.execute(
                    "select shardman.take_shared_lock(%s, %s)", (self.relation, kind)
                )
        except (psycopg.errors.LockNotAvailable, psycopg.errors.SerializationFailure):
            await conn.execute("rollback")
            raise Busy(f"a writer to {self.relation}, whose lock is on node {node}") from None

    async def _make_right(
        self, run: Run, out: Connection, into: Connection, definition: dict[str, Json], used: bool
    ) -> None:
        shape = "select shardman.shared_shape(%s)"
        alike = await value(out, shape, self.relation) == await value(into, shape, self.relation)
        content = (
            "select (c).rows || ' ' || (c).hash from (select shardman.content_hash(%s) as c) as x"
        )
        kept = alike and (
            used or await value(into, "select shardman.is_shared_copy(%s)", self.relation)
        )
        if used and alike:
            with unhurried(out), unhurried(into):
                if await value(out, content, self.relation) == await value(
                    into, content, self.relation
                ):
                    return
        live = await value(
            out, "select shardman.define_shared(shardman.find_relation(%s))", self.relation
        )
        async with rolled_back(into):
            await into.execute("begin")
            # One that is not in use is ours if it has our triggers. What else has the name stays, and is in
            # the way.
            again: list[str] = []
            given = await value(into, "select shardman.numbers_given(%s)", Jsonb(definition))
            if not kept:
                again = await value(
                    into, "select shardman.drop_shared_references(%s)", self.relation
                )
                await into.execute("select shardman.drop_shared_copy(%s)", (self.relation,))
                # Their ranges are those of the first day.
                live["sequences"] = definition["sequences"]
                await make(into, self.node, self.relation, live)
            # Rows that are there may break checks that are not valid.
            await into.execute(
                "select shardman.drop_late_checks(rel, rel) from shardman.find_relation(%s) as rel",
                (self.relation,),
            )
            await self._copy(run, out, into)
            if not kept:
                await into.execute(
                    "select shardman.go_on_with_numbers(%s, %s)", (Jsonb(live), Jsonb(given))
                )
            await into.execute(
                "select shardman.lay_late_checks(shardman.find_relation(%s), %s)",
                (self.relation, Jsonb(live)),
            )
            await into.execute("set local session_replication_role = origin")
            await into.execute("select shardman.arm_shared(%s)", (self.relation,))
            for statement in again:
                await into.execute(statement.encode())
            await into.execute("commit")
        if used:
            run.say(f"The copy of {self.relation} on node {self.node} was made anew.")

    async def _copy(self, run: Run, out: Connection, into: Connection) -> None:
        source, dest = (
            await need_relation(out, self.relation),
            await need_relation(into, self.relation),
        )
        columns, form = await copy_shape(out, self.relation)
        await begin_writing(into, self.relation)
        await into.execute(sql.SQL("delete from only {}").format(dest))
        pump = Pump(out.pgconn, into.pgconn)
        await carry(
            run,
            pump,
            sql.SQL("copy {} ({}) to stdout (format {})").format(source, columns, form).as_bytes(),
            sql.SQL("copy {} ({}) from stdin (format {})").format(dest, columns, form).as_bytes(),
        )
        run.figures.rows, run.figures.bytes = pump.rows_done, pump.bytes_done


@step("unshare_home")
@dataclass(frozen=True)
class UnshareHome(OfShared, FinishStep):
    """Takes the triggers from the copy that stays."""

    leaves = "a table that nobody can write to"
    waits = "writers to the table"
    waits_until = "unshare_home"

    async def do(self, run: Run) -> None:
        await _heard(run, self.node)
        conn = await run.node(self.node)
        statement = sql.SQL("select shardman.drop_shared_triggers({})").format(self.relation)
        await execute_patiently(run, conn, self.node, self.relation, statement, limit_s=LOCKS_S)


@step("drop_shared")
@dataclass(frozen=True)
class DropShared(OfShared, FinishStep):
    """Drops a copy, which nobody can write to any more."""

    leaves = "the copy, which nobody can write to"

    async def do(self, run: Run) -> None:
        lord = await run.node(0)
        again = "select exists (select from shardman.shared_tables where relation = %s)"
        if await value(lord, again, self.relation):
            return  # Shared anew since this was left for later.
        await _heard(run, self.node)
        conn = await run.node(self.node)
        statement = sql.SQL("select shardman.drop_shared({})").format(self.relation)
        if not await value(conn, "select shardman.is_a_copy(%s)", self.relation):
            # DROP TABLE has dropped it; what has the name now is somebody's plain table.
            await conn.execute(statement)
            return
        await execute_patiently(run, conn, self.node, self.relation, statement, limit_s=LOCKS_S)
