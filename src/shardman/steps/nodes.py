"""Steps that make a server a node, and unmake it."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from shardman import names
from shardman.errors import NodeGone, Temporary, UserError
from shardman.pg import publications, slots, standbys, subscriptions
from shardman.pg.initialize import PUBLISHED
from shardman.pg.schema import install, remove
from shardman.steps.base import Connection, Run, step
from shardman.steps.catalog import value
from shardman.steps.copy import begin_at, exported
from shardman.steps.locks import LIMIT_S, Busy, Deadline, patiently
from shardman.steps.node_check import at_all_nodes

#: Locks held by the application can delay the routes on a new node; so often is it tried again.
RECONCILE_TRIES = 40
#: A node that hangs must not keep the command that removes it.
CLEAN_S = 15.0
_READERS = "clients that use the schema shardman"


async def drop_streams(conn: Connection) -> None:
    """Drops every subscription, slot and publication of ours in a database, of whatever cluster."""
    for name in filter(names.is_ours, await subscriptions.ls(conn, "shardman_")):
        await subscriptions.drop(conn, name)
    for name in filter(names.is_ours, await slots.ls(conn, "shardman_")):
        await slots.drop(conn, name)
    for name in filter(names.is_ours, await publications.ls(conn, "shardman_")):
        await publications.drop(conn, name)


async def wait_for_nobody(conn: Connection) -> None:
    """Lets no commit wait for channels that are gone. Not before the old primaries are out of use: a
    commit that hangs on one is a write that the cluster does not have."""
    await standbys.set_list(conn, "", [])


async def roll_back_prepared(conn: Connection) -> None:
    """Rolls back what an abandoned fence has prepared: its locks would never end."""
    cur = await conn.execute(
        "select gid from pg_prepared_xacts where database = current_database()"
    )
    for gid in [row[0] for row in await cur.fetchall() if names.is_ours(row[0])]:
        await conn.execute(sql.SQL("rollback prepared {}").format(sql.Literal(gid)))


@step("forget_former")
@dataclass(frozen=True)
class ForgetFormer:
    """Clears what a former cluster left: our objects, never user data. Not undone."""

    node: int

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        if not await self._was_node(conn):
            return
        # What streams into or out of the old tables goes first: it would hold them.
        await roll_back_prepared(conn)
        await drop_streams(conn)
        await install(conn)
        aside = await _forget(run, conn, self.node)
        run.say("The database was part of a cluster before; that state was removed.")
        if aside:
            run.say("Tables with data were set aside there: " + ", ".join(aside) + ".")

    async def _was_node(self, conn: Connection) -> bool:
        return bool(
            await value(
                conn,
                "select to_regclass('shardman.local') is not null or exists (select"
                " from pg_foreign_server where srvname ~ '^shardman_node_[0-9]+(_c[0-9]+)?$')",
            )
        )

    async def undo(self, run: Run) -> None:
        """What a former cluster left is not missed."""


async def _forget(run: Run, conn: Connection, node: int, limit_s: float = math.inf) -> list[str]:
    """Takes tables, routes and servers away, all at once: a crash leaves all or nothing. Then the schema.

    Args:
        limit_s: afterwards those who use the tables are waited for no longer.

    Returns:
        The tables with rows, which have other names now.
    """

    async def tables(deadline: Deadline) -> list[str]:
        await conn.execute("select shardman.end_waiting_commits()")
        async with _locking(conn, deadline, f"clients that use sharded tables on node {node}"):
            aside = await value(conn, "select shardman.forget_tables(%s)", run.cmd_id)
            await conn.execute("select shardman.drop_routes()")
            await conn.execute("select shardman.take_back()")
        return list(aside or [])

    async def schema(deadline: Deadline) -> None:
        async with _locking(conn, deadline, f"{_READERS} on node {node}"):
            await remove(conn)

    async with _reconciled_by_nobody(conn):
        aside = await patiently(run, tables, limit_s=limit_s)
        await wait_for_nobody(conn)
        await patiently(run, schema, limit_s=limit_s)
    return aside


@asynccontextmanager
async def _locking(conn: Connection, deadline: Deadline, whom: str) -> AsyncIterator[None]:
    """A transaction that waits for no lock after the deadline.

    Args:
        whom: who may hold what it needs.

    Raises:
        Busy: somebody does.
    """
    try:
        async with conn.transaction():
            await conn.execute(
                sql.SQL("set local lock_timeout = {}").format(sql.Literal(deadline.left_ms()))
            )
            yield
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
        raise Busy(whom) from None


@asynccontextmanager
async def _reconciled_by_nobody(conn: Connection) -> AsyncIterator[None]:
    """Keeps the turn of `shardman.take_turn`, over several transactions. As long as the schema is there,
    another shardlord, that of a former cluster say, makes again what its metadata list."""
    turn = "hashtextextended('shardman reconcile', 0)"
    await conn.execute(f"select pg_advisory_lock({turn})")
    try:
        yield
    finally:
        if not conn.closed:
            await conn.execute(f"select pg_advisory_unlock({turn})")


@step("node_schema")
@dataclass(frozen=True)
class NodeSchema:
    """The schema, and who the node is."""

    node: int

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        async with conn.transaction():
            await install(conn)
            await conn.execute(
                "update shardman.local set cluster = %s, node_id = %s, lord = false, epoch = %s",
                (run.cluster_id, self.node, run.epoch),
            )
            await conn.execute("select shardman.set_database()")
        await self._same_hashes(run, conn)

    async def _same_hashes(self, run: Run, conn: Connection) -> None:
        query = "select shardman.hash_samples()"
        mine, other = await value(await run.node(0), query), await value(conn, query)
        if differing := sorted(t for t in mine if mine[t] != other[t]):
            raise UserError(
                f"the server hashes differently than the lord: {', '.join(differing)}",
                "Rows would be looked for in the wrong partitions; use servers of one kind",
            )

    async def undo(self, run: Run) -> None:
        conn = await run.node(self.node)
        if not await value(conn, "select to_regclass('shardman.local') is not null"):
            return
        cur = await conn.execute("select cluster, node_id from shardman.local")
        if await cur.fetchone() == (run.cluster_id, self.node):
            await _forget(run, conn, self.node, LIMIT_S)


@step("node_reaches")
@dataclass(frozen=True)
class NodeReaches:
    """Whether the new node reaches all the others that are up, by the addresses they have."""

    node: int

    async def do(self, run: Run) -> None:
        conn, lord = await run.node(self.node), await run.node(0)
        # One after the other: they share the new node's session.
        turn = asyncio.Lock()

        async def look(other: int, _: Connection) -> None:
            async with turn:
                options, password = await _address(lord, other)
                reason = await value(
                    conn,
                    "select shardman.try_node(%s, %s, %s, %s)",
                    *(json.dumps(options), password, run.cluster_id, other),
                )
            if reason is not None:
                where = "the lord's database" if other == 0 else f"node {other}"
                raise UserError(
                    f"the new node cannot reach {where} ({make_conninfo(**options)}): {reason}",
                    "Other nodes use that address: let the new one in there, or give the lord"
                    " another one by shardman init --advertise"
                    if other == 0
                    else "Other nodes use that address: let the new one in there",
                )

        await at_all_nodes(run, look)

    async def undo(self, run: Run) -> None:
        """Nothing was made."""


async def _address(lord: Connection, node: int) -> tuple[dict[str, str], str | None]:
    row = await (
        await lord.execute(
            "select n.options, s.password from shardman.nodes n"
            " left join shardman.node_secrets s on s.node_id = n.id where n.id = %s",
            (node,),
        )
    ).fetchone()
    assert row is not None
    return row[0], row[1]


@step("node_metadata")
@dataclass(frozen=True)
class NodeMetadata:
    """A copy of the metadata of one snapshot, and a subscription from that instant on."""

    node: int

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        name = names.meta_slot(run.cluster_id, self.node)
        async with exported(run, 0, name) as snapshot:
            await self._copy(run, conn, snapshot)
        await subscriptions.create(
            conn, name, await run.peer(0), names.meta_publication(run.cluster_id)
        )

    async def _copy(self, run: Run, conn: Connection, snapshot: str) -> None:
        async with run.borrow(0) as source:
            await begin_at(source, snapshot)
            async with conn.transaction():
                for table in PUBLISHED:
                    name = sql.Identifier("shardman", table)
                    await copy_table(source, conn, name, name)
                await conn.execute("select shardman.note_missing_schemas()")
            await source.execute("commit")

    async def undo(self, run: Run) -> None:
        name = names.meta_slot(run.cluster_id, self.node)
        ends = await asyncio.gather(
            self._unsubscribe(run, name), self._drop_slot(run, name), return_exceptions=True
        )
        for end in ends:
            if end is not None:
                raise end

    async def _unsubscribe(self, run: Run, name: str) -> None:
        await subscriptions.drop(await run.node(self.node), name)

    async def _drop_slot(self, run: Run, name: str) -> None:
        await slots.drop(await run.node(0), name)


async def copy_table(
    source: Connection, dest: Connection, table: sql.Identifier, to: sql.Identifier
) -> None:
    """Copies all rows of a table from one server into another one's table of the same columns."""
    async with (
        source.cursor() as out,
        dest.cursor() as into,
        out.copy(sql.SQL("copy {} to stdout").format(table)) as rows,
        into.copy(sql.SQL("copy {} from stdin").format(to)) as target,
    ):
        async for block in rows:
            await target.write(block)


@step("node_tables")
@dataclass(frozen=True)
class NodeTables:
    """Servers, user mappings and routes, all by the node's own reconciliation."""

    node: int

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        left, tries = None, 0
        while tries < RECONCILE_TRIES:
            before, left = left, await value(conn, "select shardman.reconcile()")
            if not left:
                return
            # Many partitions are made in several transactions: that is no failed try.
            if left == before:
                tries += 1
                await asyncio.sleep(0.05)
        row = await (
            await conn.execute("select subject, problem, hint from shardman.drift limit 1")
        ).fetchone()
        what, why, hint = row or ("the node", "does not match the metadata", None)
        raise UserError(
            f"on the new node, {what}: {why}", hint or "Put it right there and try again"
        )

    async def undo(self, run: Run) -> None:
        """What it made goes with the schema."""


@step("insert_node")
@dataclass(frozen=True)
class InsertNode:
    """The node is a member from now on."""

    node: int
    connstring: str
    zone: str | None = None

    async def do(self, run: Run) -> None:
        lord = await run.node(0)
        await lord.execute(
            "insert into shardman.nodes (id, connstring, worker_status, added_by, options, system_id, zone)"
            " values (%s, %s, 'active', %s, %s, %s, %s)",
            (
                self.node,
                self.connstring,
                run.cmd_id,
                json.dumps(run.memory["options"]),
                run.memory["system_id"],
                self.zone,
            ),
        )
        if run.memory["password"]:
            await lord.execute(
                "insert into shardman.node_secrets (node_id, password) values (%s, %s)",
                (self.node, run.memory["password"]),
            )

    async def undo(self, run: Run) -> None:
        """The switch is the point of no return."""


@step("lord_joins")
@dataclass(frozen=True)
class LordJoins:
    """The lord's database is a worker too from now on."""

    node: int
    zone: str | None = None

    async def do(self, run: Run) -> None:
        lord = await run.node(0)
        await lord.execute(
            "select shardman.lord_joins(%s, %s, %s)", (self.node, run.cmd_id, self.zone)
        )

    async def undo(self, run: Run) -> None:
        """The switch is the point of no return."""


@step("remove_node")
@dataclass(frozen=True)
class RemoveNode:
    """The node is no member from now on."""

    node: int

    async def do(self, run: Run) -> None:
        lord = await run.node(0)
        await lord.execute(
            "update shardman.nodes set worker_status = 'removed' where id = %s", (self.node,)
        )

    async def undo(self, run: Run) -> None:
        """The switch is the point of no return."""


@step("clean_node")
@dataclass(frozen=True)
class CleanNode:
    """Takes our objects off a removed node; its tables stay.

    One that was dead when it was removed, and comes back, believes that it is a member still and that its
    old primaries are in use. It is cleaned as soon as it answers; these become ordinary tables under
    other names, and nothing leads to the cluster from there any more.
    """

    node: int

    async def do(self, run: Run) -> None:
        try:
            async with asyncio.timeout(CLEAN_S):
                await self._clean(run, await run.node(self.node))
        except (NodeGone, psycopg.OperationalError, TimeoutError) as error:
            reason = (error.__cause__ or error) if isinstance(error, NodeGone) else error
            # One that does not know this cluster any more was cleaned before.
            if not isinstance(reason, UserError):
                raise Temporary(
                    f"node {self.node} cannot be reached and believes that it is a member until it"
                    " is: keep its server from being used"
                ) from error
        # Its address is not needed any more.
        lord = await run.node(0)
        await lord.execute("delete from shardman.node_secrets where node_id = %s", (self.node,))

    async def _clean(self, run: Run, conn: Connection) -> None:
        # The database may have been added again meanwhile, under another id.
        if await value(conn, "select node_id from shardman.local") != self.node:
            return
        await roll_back_prepared(conn)
        await conn.execute("select shardman.end_waiting_commits()")
        await drop_streams(conn)
        if await self._was_replaced(run, conn):
            aside = await _forget(run, conn, self.node)
            run.say(f"Node {self.node} came back and was cleaned; its tables: {', '.join(aside)}.")
            return
        await wait_for_nobody(conn)

        async def attempt(deadline: Deadline) -> None:
            async with _locking(conn, deadline, f"{_READERS} on node {self.node}"):
                await conn.execute("select shardman.reset_database()")
                await remove(conn)

        async with _reconciled_by_nobody(conn):
            await patiently(run, attempt, limit_s=LIMIT_S)

    async def _was_replaced(self, run: Run, conn: Connection) -> bool:
        """Whether it has a primary in use that is elsewhere by now."""
        elsewhere = await value(
            await run.node(0),
            "select coalesce(array_agg(part_name), '{}') from shardman.partitions"
            " where prv is null and owner <> %s",
            self.node,
        )
        return bool(
            await value(
                conn,
                "select exists (select from unnest(%s::text[]) as p"
                " where shardman.is_in_use(shardman.data_table(p)))",
                elsewhere,
            )
        )

    async def undo(self, run: Run) -> None:
        """A finish step goes only forward."""


@step("drop_meta_slot")
@dataclass(frozen=True)
class DropMetaSlot:
    """Drops the lord's slot for a node that is gone: it would keep WAL for ever."""

    of: int

    async def do(self, run: Run) -> None:
        lord = await run.node(0)
        if await value(lord, "select exists (select from shardman.returns_of(%s))", self.of):
            raise Temporary(f"node {self.of} has to know what it sets aside first")
        await slots.drop(lord, names.meta_slot(run.cluster_id, self.of))

    async def undo(self, run: Run) -> None:
        """A finish step goes only forward."""
