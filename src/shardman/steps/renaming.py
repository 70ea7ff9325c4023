"""The instant in which a sharded table gets another name on all nodes.

Two transactions on each node are prepared, in sessions of their own. One holds the table alone: its lock keeps
clients out, and it has the table's new name. The other has the names of partitions, data tables and routes.
Behind the switch the second kind is committed on all nodes before any node lets clients in: who comes finds the
new names wherever he is sent.
Channels are empty before: what comes through them bears the name of a data table.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

import psycopg
from psycopg.types.json import Jsonb

from shardman.errors import Code, Temporary, UserError
from shardman.pg.bounded import unhurried
from shardman.pg.connection import Connection
from shardman.steps.base import FinishStep, Made, Run, Scope, SwitchStep, UndoableStep, step
from shardman.steps.catalog import value
from shardman.steps.confirmation import catch_up_channels, drain_channels
from shardman.steps.convergence import await_metadata
from shardman.steps.locks import (
    HELD,
    LIMIT_S,
    Busy,
    Deadline,
    begin_locked,
    for_circles,
    patiently,
    rolled_back,
)
from shardman.steps.prepared import end_prepared, prepare, prepare_gate, released
from shardman.tasks import all_of, each_of

Sessions = Mapping[int, Connection]

#: How long a node may take to hear of a new name; writers of a shared table repeat meanwhile.
HEAR_S = 5.0


@dataclass(frozen=True)
class OfRenamed:
    """Of a step on a table that gets another name.

    Args:
        wanted: its new name.
        digest: of its metadata when the command was planned.
    """

    relation: str
    wanted: str
    digest: str

    def changed(self) -> UserError:
        return UserError(
            f"{self.relation} was changed while it got another name",
            "Try again",
            code=Code.CHANGED_MEANWHILE,
        )


@step("rename_cut_over")
@dataclass(frozen=True)
class RenameCutOver(OfRenamed, UndoableStep):
    """Gives the table and its partitions their new names on all nodes, in prepared transactions.

    Args:
        members: all nodes.
        channels: from where to where its rows are replicated.
    """

    leaves = "what was prepared, with its locks"
    waits = "statements on the table"
    waits_until = "rename_release"
    clears = "the next shardlord rolls it back and begins anew"

    members: list[int]
    channels: list[list[int]]

    def scope(self) -> Scope:
        return Scope.of(self.members)

    def makes(self) -> Made:
        return Made(f"the prepared names of {self.relation}")

    async def do(self, run: Run) -> None:
        async with AsyncExitStack() as stack:
            gates = {n: await stack.enter_async_context(run.extra_session(n)) for n in self.members}
            emitters = {
                src: await stack.enter_async_context(run.extra_session(src))
                for src in sorted({src for src, _ in self.channels})
            }

            called = {n: await self._called(conn) for n, conn in gates.items()}

            async def attempt(deadline: Deadline) -> None:
                await catch_up_channels(run, emitters, self.channels)
                async with run.cut_over_lock:
                    run.figures.cut_over.begin()
                    try:
                        await self._up(run, gates, called, emitters, deadline)
                    except HELD:
                        # The next try begins with nothing: nothing must be locked while it pauses.
                        await self.undo(run)
                        raise

            await patiently(run, attempt, patience=for_circles())

    async def _called(self, conn: Connection) -> str:
        """ALTER TABLE may have given it the name already; where it does so just now, this comes again."""
        return str(await value(conn, "select shardman.called_here(%s)", self.relation))

    async def _up(
        self,
        run: Run,
        gates: Sessions,
        called: Mapping[int, str],
        emitters: Sessions,
        deadline: Deadline,
    ) -> None:
        sessions = {node: await run.node(node) for node in self.members}
        async with AsyncExitStack() as stack:
            for conn in (*sessions.values(), *gates.values()):
                await stack.enter_async_context(rolled_back(conn))
            await all_of(
                *(
                    begin_locked(conn, [called[node]], "access exclusive", deadline, node)
                    for node, conn in gates.items()
                )
            )
            await all_of(*(self._hold(conn, node, deadline) for node, conn in sessions.items()))
            await drain_channels(run, emitters, self.channels)
            await self._need_same_metadata(sessions)
            both = (self.relation, self.wanted)
            for conn in sessions.values():
                with unhurried(conn):
                    await conn.execute("select shardman.rename_parts(%s, %s)", both)
            for conn in gates.values():
                await conn.execute("select shardman.rename_parent(%s, %s)", both)
            await prepare(run, self.relation, sessions)
            await prepare_gate(run, gates)

    async def _hold(self, conn: Connection, node: int, deadline: Deadline) -> None:
        parts = await value(conn, "select shardman.relations_to_rename(%s)", self.relation)
        await begin_locked(conn, list(parts), "access exclusive", deadline, node)

    async def _need_same_metadata(self, sessions: Sessions) -> None:
        """What is still on its way to a node would not find the table there."""
        for node in sorted(sessions):
            found = await value(
                sessions[node], "select shardman.placement_digest(%s)", self.relation
            )
            if found != self.digest:
                if node == 0:
                    raise self.changed()
                raise Busy(f"the metadata to reach node {node}")

    async def undo(self, run: Run) -> None:
        # Each node for itself: one that is down must not keep the others' locks up.
        await each_of(*(end_prepared(run, node, "rollback") for node in self.members))


@step("record_name")
@dataclass(frozen=True)
class RecordName(OfRenamed, SwitchStep):
    """In the metadata the table has another name from now on."""

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        conn = await run.node(0)
        await conn.execute(
            "select from shardman.partitions where relation = %s for update", (self.relation,)
        )
        if await value(conn, "select shardman.placement_digest(%s)", self.relation) != self.digest:
            raise self.changed()
        await conn.execute("select shardman.rename_metadata(%s, %s)", (self.relation, self.wanted))


@step("rename_release")
@dataclass(frozen=True)
class RenameRelease(FinishStep):
    """Commits what was prepared: the partitions' names on all nodes, then the table's."""

    leaves = "what was prepared on some nodes, with its locks"
    each_by_itself = True

    members: list[int]

    def scope(self) -> Scope:
        return Scope.of(self.members)

    async def do(self, run: Run) -> None:
        for gate in (False, True):
            await all_of(*(self._release(run, node, gate=gate) for node in self.members))
        run.figures.cut_over.end()

    async def _release(self, run: Run, node: int, *, gate: bool) -> None:
        try:
            await end_prepared(run, node, "commit", gate=gate)
        except (psycopg.OperationalError, UserError):
            run.say(f"Node {node} could not be reached and will follow when it is back.")


@step("redefine_renamed")
@dataclass(frozen=True)
class RedefineRenamed(FinishStep):
    """Writes down what the table is under its new name: texts in its definition may have the old one."""

    leaves = "policies with the old name in the metadata, for nodes that are added"

    relation: str
    node: int

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        await released(run, self.node)
        async with run.extra_session(self.node) as conn:
            found = await value(conn, "select shardman.redefine(%s)", self.relation)
            shared = await value(conn, "select shardman.redefine_shared(%s)", self.relation)
        lord = await run.node(0)
        if shared is not None:
            await lord.execute(
                "update shardman.shared_tables set definition = %s where relation = %s",
                (Jsonb(shared), self.relation),
            )
        if found is None:
            return
        await lord.execute(
            "update shardman.tables set definition = %s, create_sql = %s where relation = %s",
            (Jsonb(found["definition"]), found["create_sql"], self.relation),
        )


@step("record_shared_name")
@dataclass(frozen=True)
class RecordSharedName(SwitchStep):
    """In the metadata a shared table has another name from now on; each node hears of it, and follows."""

    relation: str
    wanted: str

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        conn = await run.node(0)
        await conn.execute(
            "select shardman.rename_shared_metadata(%s, %s)", (self.relation, self.wanted)
        )


@step("follow_name")
@dataclass(frozen=True)
class FollowName(FinishStep):
    """A node's copy of a shared table, and what lets it be written through, are called as the metadata say."""

    leaves = "a copy that cannot be written until it is done"
    waits = "writers to the table: they are told to repeat"
    waits_until = "follow_name"

    node: int
    relation: str

    def scope(self) -> Scope:
        return Scope.of([self.node])

    async def do(self, run: Run) -> None:
        if not await await_metadata(run, self.node, HEAR_S):
            raise Temporary(f"node {self.node} has not heard of it yet", code=Code.NODE_BEHIND)
        async with run.extra_session(self.node) as conn:

            async def attempt(_: Deadline) -> None:
                await conn.execute("select shardman.follow_name(%s)", (self.relation,))

            await patiently(run, attempt, limit_s=LIMIT_S)
