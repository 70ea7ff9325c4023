"""The sharded table under another name, on every node that gets partitions of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from psycopg import sql
from psycopg.types.json import Jsonb

from shardman import names
from shardman.pg.connection import Connection
from shardman.steps.base import FinishStep, Made, OfTable, Run, Scope, UndoableStep, step
from shardman.steps.catalog import need_table, value
from shardman.steps.catalog import relation as find
from shardman.steps.conversion.definition import make_parent
from shardman.tasks import all_of, each_of

#: Partitions in one transaction: each takes some locks, and thousands are more than a server has.
BATCH = 128


def batches(count: int) -> Iterator[tuple[int, int]]:
    """First and last number of each batch of partitions."""
    return ((first, min(first + BATCH, count) - 1) for first in range(0, count, BATCH))


def batched(parts: Sequence[int]) -> list[list[int]]:
    """Numbers of partitions in batches."""
    return [[*parts[at : at + BATCH]] for at in range(0, len(parts), BATCH)]


async def keys_of(conn: Connection, table: OfTable) -> Jsonb | None:
    """The columns that tell the table's rows apart; None where nothing does. Asked for on its node."""
    found = await value(
        conn,
        "select jsonb_agg(to_jsonb(k) order by n)"
        " from shardman.conversion_key(%s) with ordinality as k (name, type, equals, n)",
        table.relation,
    )
    return None if found is None else Jsonb(found)


async def fresh_servers(run: Run, table: OfTable) -> Jsonb:
    """Makes, on the table's node, a second foreign server for each of the others.

    A session there may be in a transaction that used its connection to such a node before: the snapshot there
    is older than the rows that are copied and would miss them. Over a server of its own it gets a new
    connection. `shardman.reconcile` exchanges the routes for plain ones once no such transaction is left.
    """
    conn = await run.node(table.node)
    servers = {str(n): names.fresh_server(n, run.cmd_id) for n in table.nodes()[1:]}
    for node, server in servers.items():
        await conn.execute("select shardman.make_fresh_server(%s, %s)", (int(node), server))
    return Jsonb(servers)


async def has_rows(conn: Connection, table: OfTable) -> bool:
    """Whether the plain table has any."""
    found = await need_table(conn, table.relation)
    cur = await conn.execute(sql.SQL("select exists (select from only {})").format(found))
    return bool((await cur.fetchone() or [False])[0])


async def renew_routes(run: Run, table: OfTable) -> None:
    """Lets the routes on the table's node lead over `fresh_servers`."""
    conn = await run.node(table.node)
    servers = await fresh_servers(run, table)
    definition, places = Jsonb(table.definition), table.all_places()
    for first, last in batches(len(places)):
        await conn.execute(
            "select shardman.renew_shadow_routes(%s, %s, %s, %s, %s)",
            (definition, places, servers, first, last),
        )


@step("conversion_shadow")
@dataclass(frozen=True)
class ConversionShadow(OfTable, UndoableStep):
    """The sharded table under another name: parent, partitions, data tables without keys, and routes to those
    of the other nodes."""

    def makes(self) -> Made:
        return Made(f"the partitions of {self.relation} under another name")

    async def do(self, run: Run) -> None:
        source = await run.node(self.node)
        keys = await keys_of(source, self)
        # Nobody can miss rows that there are not; plain routes need not be exchanged later.
        fresh = len(self.nodes()) > 1 and await has_rows(source, self)
        servers = await fresh_servers(run, self) if fresh else Jsonb({})
        run.handed.fresh_routes = fresh
        await all_of(
            *(
                self._on(run, n, keys, servers if n == self.node else Jsonb({}))
                for n in self.nodes()
            )
        )

    async def _on(self, run: Run, node: int, keys: Jsonb | None, servers: Jsonb) -> None:
        conn = await run.node(node)
        shadow = names.shadow(self.relation, run.cmd_id)
        definition, places = Jsonb(self.definition), self.all_places()
        await make_parent(conn, self.definition, shadow)
        for first, last in batches(len(places)):
            await conn.execute(
                "select shardman.make_shadow_partitions(%s, %s, %s, %s, %s, %s)",
                (definition, shadow, places, servers, first, last),
            )
        if keys is not None:
            await conn.execute(
                "select shardman.make_staging(%s, %s, %s)", (shadow, keys, run.cmd_id)
            )

    async def undo(self, run: Run) -> None:
        # Each node for itself: one that is down must not keep what is on the others.
        await each_of(*(self._undo_on(run, n) for n in self.nodes()))

    async def _undo_on(self, run: Run, node: int) -> None:
        conn = await run.node(node)
        shadow = names.shadow(self.relation, run.cmd_id)
        staging = sql.Identifier("shardman", f"rows_c{run.cmd_id}")
        await conn.execute(sql.SQL("drop table if exists {}").format(staging))
        while await value(conn, "select shardman.drop_shadow_parts(%s, %s)", shadow, BATCH):
            pass
        if (found := await find(conn, shadow)) is not None:
            await conn.execute(sql.SQL("drop table {}").format(found))
        if node == self.node:
            await _drop_servers(run, self.node, self.nodes()[1:])


async def _drop_servers(run: Run, node: int, others: Sequence[int]) -> None:
    conn = await run.node(node)
    for other in others:
        server = names.fresh_server(other, run.cmd_id)
        await conn.execute("select shardman.drop_unused_server(%s)", (server,))


@step("end_fresh_routes")
@dataclass(frozen=True)
class EndFreshRoutes(FinishStep):
    """Drops the foreign servers of `fresh_servers`. While a transaction older than the switch is open the
    routes stay on them; then the node's own reconciliation drops them later."""

    leaves = "foreign servers of routes, which work"

    node: int
    others: list[int]

    def scope(self) -> Scope:
        return Scope.of([self.node])

    async def do(self, run: Run) -> None:
        await _drop_servers(run, self.node, self.others)
