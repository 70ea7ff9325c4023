"""The instant in which a table, with all that are colocated with it, gets its new partitions on all nodes.

A node with the old bounds would look for rows where they are not, so all change together. First, on every node,
the tables alone are locked, each behind those that it refers to, as who inserts rows comes to them; those whom
other nodes have sent to their partitions go on, and end. Then the partitions. Not against writers first: who
has read a table and then writes to it would wait for us, and we for him. While we stand in a queue and hold
nothing, his server lets him pass. A try that does not get all of it in time gives all of it back. Under the
locks the channels run empty, so replicas are as their primaries, and what is left in the logs is replayed: old
and new data tables are equal. Then each node exchanges all partitions, in a transaction that is *prepared*: its
locks outlive every crash, and nobody sees one node's new partitions before the metadata have decided. Foreign
keys come last in it: those between colocated tables lead from new data tables to new ones.

Statements that wait for the lock find the new partitions when they get it. Nodes commit one after the other;
whom one that has sends to one that has not waits there, for partitions with new names exist before, and the
exchange locks them (`shardman.make_awaited_partition`). He has a picture of before that node's commit: so the
rest of the log is replayed in a transaction of its own, which is committed before the exchange is prepared.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg

from shardman.errors import Code, UserError
from shardman.pg.bounded import unhurried
from shardman.pg.connection import Connection
from shardman.steps.base import FinishStep, Made, Run, Scope, UndoableStep, step
from shardman.steps.catalog import value
from shardman.steps.confirmation import catch_up_channels, drain_channels
from shardman.steps.locks import (
    HELD,
    Busy,
    Deadline,
    begin_locked,
    for_circles,
    patiently,
    rolled_back,
)
from shardman.steps.prepared import end_prepared, prepare
from shardman.steps.references import held
from shardman.steps.split.base import OfSplit
from shardman.steps.split.rows import catch_up_all, replay_rest
from shardman.tasks import all_of, each_of

Sessions = Mapping[int, Connection]

#: How long is waited, in ms, for who reads a single old data table when nobody can write to it any more.
DATA_MS = 100

_READABLE: LiteralString = "select shardman.hold_for_exchange(%s)"
_WHOLLY: LiteralString = "select shardman.hold_table(%s, 'access exclusive')"


@step("split_cut_over")
@dataclass(frozen=True)
class SplitCutOver(OfSplit, UndoableStep):
    """Exchanges all partitions on all nodes, in prepared transactions.

    Args:
        members: all nodes.
        beside: the tables that are colocated with it, each with its `relation` and `definition`; each behind
            those that it refers to.
    """

    leaves = "what was prepared, with its locks"
    waits = "statements on the table"
    waits_until = "split_release"
    clears = "the next shardlord rolls it back and begins anew"

    members: list[int]
    beside: list[dict[str, Any]] = field(default_factory=list)

    def scope(self) -> Scope:
        return Scope.of(self.members)

    def makes(self) -> Made:
        return Made(f"the prepared exchange of the partitions of {self.relation}")

    @property
    def splits(self) -> list[OfSplit]:
        """Of each table of the group, in the order in which they are locked."""
        tables = [{"relation": self.relation, "definition": self.definition}, *self.beside]
        return [OfSplit(former=self.former, copies=self.copies, **table) for table in tables]

    async def do(self, run: Run) -> None:
        sessions = {node: await run.node(node) for node in self.members}
        referred = [to for split in self.splits for to in split.referred]

        async with AsyncExitStack() as extra:
            emitters = {
                src: await extra.enter_async_context(run.extra_session(src))
                for src in sorted({src for src, _ in self.channels})
            }
            writers = {
                n: await extra.enter_async_context(run.extra_session(n)) for n in self.holders
            }

            async def attempt(deadline: Deadline) -> None:
                state = await self._state(sessions)
                await self._still_the_same(run, sessions)
                await catch_up_all(run, self.splits)
                await catch_up_channels(run, emitters, list(self.channels))
                where = [sessions[n] for n in sorted({n for n, *_ in self.copies})]
                async with run.cut_over_lock, held(run, referred, where):
                    run.figures.cut_over.begin()
                    try:
                        await self._up(run, sessions, emitters, writers, deadline, state)
                    except HELD:
                        # The next try begins with nothing: nothing must be locked while it pauses.
                        await self.undo(run)
                        raise

            await patiently(run, attempt, patience=for_circles())

    async def _up(
        self,
        run: Run,
        sessions: Sessions,
        emitters: Sessions,
        writers: Sessions,
        deadline: Deadline,
        state: str,
    ) -> None:
        async with AsyncExitStack() as stack:
            for conn in sessions.values():
                await stack.enter_async_context(rolled_back(conn))
            await self._close_gate(sessions, deadline)
            await self._need_no_old_snapshots(run, sessions)
            await drain_channels(run, emitters, list(self.channels))
            await all_of(*(self._replay_rest(run, writers[n], n) for n in self.holders))
            for conn in sessions.values():
                await self._partitions(conn, _WHOLLY, Deadline(DATA_MS))
            if await self._state(sessions) != state:
                raise Busy("somebody who is changing a table")
            await all_of(*(self._swap(run, conn) for conn in sessions.values()))
            await prepare(run, self.relation, dict(sessions))

    async def _close_gate(self, sessions: Sessions, deadline: Deadline) -> None:
        tables = [split.relation for split in self.splits]
        # All ask at the same instant.
        await all_of(*(conn.execute("begin") for conn in sessions.values()))
        await all_of(
            *(
                begin_locked(conn, tables, "access exclusive", deadline, node)
                for node, conn in sessions.items()
            )
        )
        await all_of(*(self._partitions(conn, _READABLE, deadline) for conn in sessions.values()))

    async def _partitions(self, conn: Connection, hold: LiteralString, deadline: Deadline) -> None:
        for split in self.splits:
            await conn.execute(
                "select set_config('lock_timeout', %s, true)", (f"{deadline.left_ms()}ms",)
            )
            await conn.execute(hold, (split.relation,))

    async def _replay_rest(self, run: Run, conn: Connection, node: int) -> None:
        for split in self.splits:
            await replay_rest(run, split, conn, node)

    async def _need_no_old_snapshots(self, run: Run, sessions: Sessions) -> None:
        """Transactions of clients of a node would not see the rows of its new tables. Those who come from other
        nodes come over new connections, for the routes are on servers of their own."""
        for node in self.holders:
            copied = run.handed.split.get(node)
            if whom := await value(
                sessions[node],
                "select coalesce(shardman.old_snapshots(), shardman.snapshots_before(%s, %s::text::xid))",
                copied and copied.at,
                copied and copied.xid,
            ):
                raise Busy(f"{whom} on node {node}, whose snapshot is older than the new tables")

    async def _swap(self, run: Run, conn: Connection) -> None:
        owners = [nodes[0] for nodes in self.copies]
        with unhurried(conn):
            for split in self.splits:
                await conn.execute(
                    "select shardman.split_swap(%s, %s, %s, %s)",
                    (split.described, split.former, owners, run.cmd_id),
                )
            for split in self.splits:
                await conn.execute("select shardman.split_refer(%s, %s)", (split.described, owners))

    async def _state(self, sessions: Sessions) -> str:
        """Changes whenever a table's definition does; `_still_the_same` says in what."""
        conn = sessions[self.copies[0][0]]
        states = [
            await value(conn, "select shardman.catalog_state(%s)", split.relation)
            for split in self.splits
        ]
        return " ".join(map(str, states))

    async def _still_the_same(self, run: Run, sessions: Sessions) -> None:
        """Raises UserError when somebody has changed a table since the command was planned."""
        conn = sessions[self.copies[0][0]]
        for split in self.splits:
            now = await value(conn, "select shardman.redefine(%s)", split.relation)
            found = dict(now["definition"]) if now else {}
            changed = sorted(
                name
                for name in found.keys() | split.definition.keys()
                if name != "partitions_count" and found.get(name) != split.definition.get(name)
            )
            if changed:
                raise UserError(
                    f"{split.relation} was changed while its partitions were made"
                    f" ({', '.join(changed)})",
                    "Try again",
                    code=Code.CHANGED_MEANWHILE,
                )

    async def undo(self, run: Run) -> None:
        # Each node for itself: one that is down must not keep the others' locks up.
        await each_of(*(end_prepared(run, node, "rollback") for node in self.members))


@step("split_release")
@dataclass(frozen=True)
class SplitRelease(FinishStep):
    """Commits what was prepared on all nodes, at the same time; what is left on one that is away its own
    `split_clear` does."""

    leaves = "what was prepared on some nodes, with its locks"
    each_by_itself = True

    members: list[int]

    def scope(self) -> Scope:
        return Scope.of(self.members)

    async def do(self, run: Run) -> None:
        async def release(node: int) -> None:
            try:
                await end_prepared(run, node, "commit")
            except (psycopg.OperationalError, UserError):
                run.say(f"Node {node} could not be reached and will follow when it is back.")

        await all_of(*(release(node) for node in self.members))
        run.figures.cut_over.end()
