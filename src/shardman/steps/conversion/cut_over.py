"""The instant in which a plain table becomes a sharded one.

Under an ACCESS EXCLUSIVE lock on the table nobody reads or writes it. What is left in the log is
replayed, so shadow and table are equal; then they exchange their names, on every node that gets
partitions. The transactions are *prepared*: their locks outlive every crash, so nothing can slip in
before the metadata has decided.

Statements that wait for the lock find the sharded table when they get it: PostgreSQL looks a name up
again after it has waited for a lock, and plans anew what it had prepared. A transaction with a snapshot
older than the copy would see an empty table; the cut-over gives way to such ones and says so.

A crash before the transactions are prepared leaves nothing of them: shadow and log are as they were, and
go when the command is undone. Afterwards the table stays locked until the exchange of names is rolled back or
committed (steps/prepared.py). The plain table is dropped behind the commit only (aside.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from shardman import names
from shardman.errors import Code, UserError
from shardman.pg.bounded import unhurried
from shardman.pg.connection import Connection
from shardman.steps.base import Made, OfTable, Run, UndoableStep, step
from shardman.steps.catalog import value
from shardman.steps.conversion.catch_up import catch_up, replay_of, sessions_of
from shardman.steps.conversion.copy import carriers
from shardman.steps.conversion.definition import check_unchanged, explained
from shardman.steps.conversion.indexes import BUILD_MEMORY_KB
from shardman.steps.conversion.shadow import has_rows, renew_routes
from shardman.steps.conversion.verify import Contents
from shardman.steps.locks import HELD, Busy, Deadline, begin_locked, patiently, rolled_back
from shardman.steps.prepared import end_prepared, prepare
from shardman.steps.references import held
from shardman.tasks import all_of, each_of

_Before = Callable[[], Awaitable[None]]
_Work = Callable[[Mapping[int, Connection]], Awaitable[None]]


class _StaleRoutes(Exception):
    """Rows came into a table that was empty: see `shadow.fresh_servers`."""


async def _cut_over(run: Run, target: Conversion, before: _Before, under_lock: _Work) -> None:
    """Tries until the switch is prepared.

    Args:
        before: what makes the work under the lock short; runs before each try.
        under_lock: makes the shadow equal to the table.
    """
    conns = await sessions_of(run, target)
    conn = conns[target.node]
    keys: Any = target.definition.get("foreign_keys", ())
    referred: list[str] = [key["to"] for key in keys]

    async def attempt(deadline: Deadline) -> None:
        state = await _state(conn, target)
        await _still_the_same(conn, target)
        await before()
        async with run.cut_over_lock, held(run, referred, list(conns.values())):
            run.figures.cut_over.begin()
            try:
                await _prepare(run, conns, target, deadline, state, under_lock)
            except HELD:
                # The next try begins with nothing: the table must not be locked while it pauses.
                await target.undo(run)
                raise

    while True:
        try:
            return await patiently(run, attempt)
        except _StaleRoutes:
            await renew_routes(run, target)
            run.handed.fresh_routes = True


async def _prepare(
    run: Run,
    conns: Mapping[int, Connection],
    target: Conversion,
    deadline: Deadline,
    state: str,
    under_lock: _Work,
) -> None:
    """Raises Busy when the lock could not be had in time or somebody's snapshot is too old."""
    conn = conns[target.node]
    others = {n: c for n, c in conns.items() if n != target.node}
    async with AsyncExitStack() as stack:
        for each in conns.values():
            await stack.enter_async_context(rolled_back(each))
        locked = [*await _views(conn, target), target.relation]
        await begin_locked(conn, locked, "access exclusive", deadline, target.node)
        for each in others.values():
            if each.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
                await each.execute("begin")
        await _no_old_snapshots(run, conn, target.node, others)
        try:
            if await _state(conn, target) != state:
                raise Busy("somebody who is changing the table")
            await under_lock(conns)
            if others and not run.handed.fresh_routes and await has_rows(conn, target):
                raise _StaleRoutes
            await all_of(*(_swap(run, target, n, c) for n, c in conns.items()))
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            raise Busy(f"a lock on node {target.node}") from None
        # The others are committed first: whoever then comes from them to the table's node waits for what was
        # touched there, and whoever waits for the table finds what is right on all nodes.
        await prepare(run, target.relation, {**others, target.node: conn})


async def _swap(run: Run, target: Conversion, node: int, conn: Connection) -> None:
    aside = names.set_aside(target.relation, run.cmd_id) if node == target.node else None
    await conn.execute(
        "select shardman.conversion_swap(%s, %s, %s, %s, %s)",
        (
            target.relation,
            names.shadow(target.relation, run.cmd_id),
            aside,
            Jsonb(target.definition),
            run.cmd_id,
        ),
    )


async def _views(conn: Connection, target: Conversion) -> list[str]:
    """Those that will read the sharded table. Whoever reads one locks it first, and its tables then."""
    query = "select shardman.view_names(shardman.find_relation(%s))"
    return list(await value(conn, query, target.relation))


async def _no_old_snapshots(
    run: Run, conn: Connection, node: int, others: Mapping[int, Connection]
) -> None:
    """Raises Busy where a transaction would miss rows that have come to its node."""
    found = {node: await _old_snapshots(run, conn)}
    for other, each in others.items():
        found[other] = await value(each, "select shardman.old_snapshots()")
    for where, whom in found.items():
        if whom:
            raise Busy(f"{whom} on node {where}, whose snapshot is older than the partitions")


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
    if more := target.unplanned(await _views(conn, target)):
        raise UserError(
            f"{', '.join(more)} was made of {target.relation} while it was being sharded",
            "Try again",
            code=Code.CHANGED_MEANWHILE,
        )


@dataclass(frozen=True)
class Conversion(OfTable, UndoableStep):
    """What both ways of switching have in common."""

    leaves = "what was prepared, with its locks"
    waits = "statements on the table"
    waits_until = "commit_prepared"
    clears = "the next shardlord rolls it back and begins anew"

    #: The table's views when it was planned, which are made on other nodes afterwards.
    views: list[str] | None = None

    def unplanned(self, views: list[str]) -> list[str]:
        """Those of its views that have come since; a plan of an older version knows of none."""
        return [v for v in views if self.views is not None and v not in self.views]

    def makes(self) -> Made:
        nodes = self.nodes()
        where = f"node {nodes[0]}" if len(nodes) == 1 else f"nodes {', '.join(map(str, nodes))}"
        return Made(f"the prepared cut-over of {self.relation} on {where}")

    async def undo(self, run: Run) -> None:
        # Each node for itself: one that is down must not keep the others' locks up.
        await each_of(*(end_prepared(run, n, "rollback") for n in self.nodes()))


@step("conversion_cut_over")
@dataclass(frozen=True)
class ConversionCutOver(Conversion):
    """Replays the rest of the log under the lock."""

    async def do(self, run: Run) -> None:
        how = await replay_of(run, self)

        async def before() -> None:
            async with explained(await run.node(self.node), self.relation, self.definition):
                await catch_up(run, how)

        async def under_lock(conns: Mapping[int, Connection]) -> None:
            await how.bring(run, conns, hold=True)

        await _cut_over(run, self, before, under_lock)


@step("convert_at_once")
@dataclass(frozen=True)
class ConvertAtOnce(Conversion):
    """Copies a table whose rows have no key, compares and builds indexes, all under the lock."""

    async def do(self, run: Run) -> None:
        async def before() -> None:
            """Nothing shortens it."""

        async def under_lock(conns: Mapping[int, Connection]) -> None:
            for node, carrier in (await carriers(run, self)).items():
                source = conns[self.node]
                with unhurried(source):
                    if node == self.node:
                        await source.execute(
                            "select shardman.copy_chunk(%s, %s)",
                            (carrier.shadow, carrier.query("")),
                        )
                    else:
                        await carrier.carry(source, conns[node], "")
            run.figures.rows = await self._compare(run, conns)
            await all_of(*(self._build(n, c) for n, c in conns.items()))

        await _cut_over(run, self, before, under_lock)

    async def _compare(self, run: Run, conns: Mapping[int, Connection]) -> int:
        """How many rows there are; the same in the table and in the shadow."""
        table, shadow = Contents(), Contents()
        conn, name = conns[self.node], names.shadow(self.relation, run.cmd_id)
        filenode = await value(
            conn, "select pg_relation_filenode(shardman.find_relation(%s)::regclass)", self.relation
        )
        with unhurried(conn):
            cur = await conn.execute(
                "select k, rows, hash from shardman.chunk_content(%s, %s, %s, %s, %s, 0, 4294967294)",
                (self.relation, name, Jsonb(self.definition), run.cmd_id, filenode),
            )
            table.add(await cur.fetchall())
        for node, each in conns.items():
            with unhurried(each):
                cur = await each.execute(
                    "select k, rows, hash from shardman.shadow_contents(%s, null, %s, %s)",
                    (name, run.cmd_id, self.parts(node)),
                )
                shadow.add(await cur.fetchall())
        table.need(shadow, self.relation)
        return table.rows

    async def _build(self, node: int, conn: Connection) -> None:
        with unhurried(conn):
            await conn.execute(
                "select shardman.make_shadow_indexes(%s, %s, %s)",
                (Jsonb(self.definition), self.parts(node), BUILD_MEMORY_KB),
            )
