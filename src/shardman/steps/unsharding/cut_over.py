"""The instant in which a sharded table becomes a plain one.

On all nodes at the same instant the table alone is locked first: those who are at work on its partitions
from elsewhere end, and nobody waits in a circle. Then its partitions are locked on the node where they all
are. What is left in the log is replayed, so shadow and partitions are equal; then the shadow takes the
table's name, and the partitions lose theirs: a statement that comes from another node finds none. The
transaction is *prepared*: its locks outlive every crash, so nothing can slip in before the metadata has
decided.

A crash before it is prepared leaves nothing of it: shadow and log are as they were, and go when the command is
undone. Afterwards the table stays locked until the exchange is rolled back or committed (steps/prepared.py).
Partitions and their rows are dropped behind the commit only (former.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import psycopg
from psycopg.types.json import Jsonb

from shardman.errors import Temporary, UserError
from shardman.model.plan import Json
from shardman.pg.bounded import unhurried
from shardman.pg.connection import Connection
from shardman.steps.base import Made, Run, Scope, UndoableStep, step
from shardman.steps.catalog import value
from shardman.steps.locks import Busy, Deadline, begin_locked, for_circles, patiently, rolled_back
from shardman.steps.prepared import end_prepared, prepare
from shardman.steps.references import held
from shardman.steps.unsharding.base import OfDefined, parts_of
from shardman.steps.unsharding.catch_up import catch_up, check_unchanged, replayed
from shardman.tasks import all_of

#: How long each lock is waited for at least.
LOCK_MS = 100


@asynccontextmanager
async def _sessions(run: Run, nodes: list[int]) -> AsyncIterator[dict[int, Connection]]:
    """Sessions on nodes; one that is away has nobody who writes through it."""
    async with AsyncExitStack() as stack:
        found: dict[int, Connection] = {}
        for node in nodes:
            try:
                found[node] = await stack.enter_async_context(run.extra_session(node))
            except (psycopg.OperationalError, UserError, Temporary):
                continue
        try:
            yield found
        finally:
            for conn in found.values():
                if not conn.closed and not conn.broken:
                    await asyncio.shield(conn.rollback())


@step("unshard_cut_over")
@dataclass(frozen=True)
class UnshardCutOver(OfDefined, UndoableStep):
    """Replays the rest of the log under the lock and exchanges the names.

    Args:
        catalog: the state of the catalogs when the command was planned.
        others: the other nodes that have the table.
        at_once: its rows have no key: they are copied under the lock.
    """

    leaves = "what was prepared, with its locks"
    waits = "statements on the table"
    waits_until = "commit_prepared"
    clears = "the next shardlord rolls it back and begins anew"

    catalog: str = ""
    others: list[int] = field(default_factory=list)
    at_once: bool = False

    def scope(self) -> Scope:
        return Scope.of([self.node])

    def makes(self) -> Made:
        return Made(f"the prepared cut-over of {self.relation} on node {self.node}")

    async def undo(self, run: Run) -> None:
        await end_prepared(run, self.node, "rollback")

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)

        async def attempt(deadline: Deadline) -> None:
            # For each lock: what comes before the first one takes its time on a busy machine.
            wait_ms = max(LOCK_MS, deadline.left_ms())
            await check_unchanged(conn, self.relation, self.catalog)
            if not self.at_once:
                await catch_up(run, conn, self.relation)
            async with (
                run.cut_over_lock,
                _sessions(run, self.others) as others,
                held(run, self._referred(), [conn]),
            ):
                run.figures.cut_over.begin()
                await self._prepare(run, conn, others, wait_ms)

        await patiently(run, attempt, patience=for_circles())

    def _referred(self) -> list[str]:
        keys: Json = self.definition.get("foreign_keys")
        found = keys if isinstance(keys, list) else []
        return [str(k["to"]) for k in found if isinstance(k, dict) and "to_columns" not in k]

    async def _prepare(
        self, run: Run, conn: Connection, others: dict[int, Connection], wait_ms: int
    ) -> None:
        """Raises Busy when a lock could not be had in time or somebody's snapshot is too old."""
        async with rolled_back(conn):
            deadline = Deadline(wait_ms)
            await all_of(
                *(
                    begin_locked(session, [self.relation], "access exclusive", deadline, node)
                    for node, session in {**others, self.node: conn}.items()
                )
            )
            parts = await parts_of(conn, self.relation)
            tables = [t for each in parts for t in (each.part, each.data)]
            await begin_locked(conn, tables, "access exclusive", Deadline(wait_ms), self.node)
            await self._need_young(run, conn)
            await check_unchanged(conn, self.relation, self.catalog)
            await self._swap(run, conn)
            await prepare(run, self.relation, {self.node: conn})

    async def _swap(self, run: Run, conn: Connection) -> None:
        try:
            if self.at_once:
                with unhurried(conn):
                    run.figures.rows = await value(
                        conn,
                        "select shardman.unshard_at_once(%s, %s)",
                        *(self.relation, self.shadow(run)),
                    )
            else:
                await conn.execute(replayed(run))
            await conn.execute(
                "select shardman.unshard_swap(%s, %s, %s, %s)",
                (self.relation, self.shadow(run), Jsonb(self.definition), run.cmd_id),
            )
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            raise Busy(f"a lock on node {self.node}") from None

    async def _need_young(self, run: Run, conn: Connection) -> None:
        """Whoever has an older snapshot than the copy would not see its rows. Idle ones have one only when
        they keep it to their end; those at work get another, unless they began before it was ready."""
        copied = run.handed.copied
        whom = await value(
            conn,
            "select coalesce(shardman.old_snapshots(), shardman.snapshots_before(%s, %s::text::xid))",
            copied and copied.at,
            copied and copied.xid,
        )
        if whom:
            raise Busy(f"{whom} on node {self.node}, whose snapshot is older than the plain table")
