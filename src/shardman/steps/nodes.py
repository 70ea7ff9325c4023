"""Steps that make a server a node, and unmake it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

import psycopg
from psycopg import sql

from shardman import names
from shardman.errors import UserError
from shardman.pg import publications, slots, subscriptions
from shardman.pg.connect import password_of, resolved
from shardman.pg.initialize import PUBLISHED
from shardman.pg.schema import install, remove
from shardman.pg.server import WORKER, requirements
from shardman.steps.base import Connection, Run, step
from shardman.steps.catalog import value
from shardman.steps.copy import export_snapshot

#: Locks held by the application can delay the routes on a new node; so often is it tried again.
RECONCILE_TRIES = 40


@step("check_node")
@dataclass(frozen=True)
class CheckNode:
    """Whether the server can take part; finds out how others reach it."""

    node: int

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        await requirements(conn, WORKER)
        await self._not_a_member(run, conn)
        await self._same_encoding(run, conn)
        await self._no_file_copy(run, conn)
        run.memory["options"] = resolved(conn, await run.conninfo(self.node))
        run.memory["password"] = password_of(conn)
        run.memory["system_id"] = await value(
            conn, "select system_identifier::text from pg_control_system()"
        )
        await self._reachable(run)

    async def _not_a_member(self, run: Run, conn: Connection) -> None:
        if not await value(conn, "select to_regclass('shardman.local') is not null"):
            return
        row = await (
            await conn.execute("select cluster, node_id, lord from shardman.local")
        ).fetchone()
        assert row is not None
        cluster, node_id, lord = row
        if lord:
            raise UserError(
                f"this database is the lord's of cluster {cluster}", "Give another database"
            )
        if cluster == run.cluster_id and await value(
            await run.node(0),
            "select exists (select from shardman.nodes where id = %s and worker_status <> 'removed')",
            node_id,
        ):
            raise UserError(f"this database is node {node_id} already", "See shardman.nodes")

    async def _same_encoding(self, run: Run, conn: Connection) -> None:
        lord = await run.node(0)
        query = "select current_setting('server_encoding')"
        mine, other = await value(lord, query), await value(conn, query)
        if mine != other:
            raise UserError(
                f"the server's encoding is {other}, the lord's is {mine}",
                "Text would hash differently: make its database with the lord's encoding",
            )

    async def _no_file_copy(self, run: Run, conn: Connection) -> None:
        query = (
            "select system_identifier::text || '', pg_postmaster_start_time()::text"
            " from pg_control_system()"
        )
        mine = await (await conn.execute(query)).fetchone()
        assert mine is not None
        lord = await run.node(0)
        cur = await lord.execute(
            "select id from shardman.nodes where system_id = %s"
            " and (lord or worker_status <> 'removed') order by id",
            (mine[0],),
        )
        for (twin,) in await cur.fetchall():
            other = await (await (await run.node(twin)).execute(query)).fetchone()
            # Two databases of one server have one identifier by right.
            if other is not None and other[1] != mine[1]:
                raise UserError(
                    f"the server's data folder is a copy of node {twin}'s (same system identifier)",
                    "Make it with an initdb of its own",
                )

    async def _reachable(self, run: Run) -> None:
        """Every worker that is up must reach the new one."""
        lord = await run.node(0)
        cur = await lord.execute(
            "select id from shardman.nodes where lord or worker_status = 'active'"
        )
        await asyncio.gather(*(self._from(run, row[0]) for row in await cur.fetchall()))

    async def _from(self, run: Run, other: int) -> None:
        try:
            conn = await run.node(other)
        except (psycopg.OperationalError, UserError):
            return
        try:
            await conn.execute(
                "select shardman.try_reach(%s, %s)",
                (json.dumps(run.memory["options"]), run.memory["password"]),
            )
        except psycopg.Error as error:
            raise UserError(
                f"node {other} cannot reach the new one: {error.diag.message_primary}",
                "Give a connection string that works from every node",
            ) from error

    async def undo(self, run: Run) -> None:
        """Nothing was made."""


@step("forget_former")
@dataclass(frozen=True)
class ForgetFormer:
    """Clears what a former cluster left: our objects, never user data. Not undone."""

    node: int

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        former = await value(conn, "select to_regnamespace('shardman') is not null")
        routes = await value(
            conn,
            "select exists (select from pg_foreign_server where srvname like 'shardman\\_node\\_%')",
        )
        if not former and not routes:
            return
        await drop_streams(conn)
        await install(conn)
        aside = await value(conn, "select shardman.forget_tables(%s)", run.cmd_id) or []
        await conn.execute("select shardman.drop_routes()")
        await remove(conn)
        run.say("The database was part of a cluster before; that state was removed.")
        if aside:
            run.say("Tables with data were set aside there: " + ", ".join(aside) + ".")

    async def undo(self, run: Run) -> None:
        """What a former cluster left is not missed."""


async def drop_streams(conn: Connection) -> None:
    """Drops every subscription, slot and publication of ours in a database."""
    for name in await subscriptions.ls(conn, "shardman_"):
        await subscriptions.drop(conn, name)
    for name in await slots.ls(conn, "shardman_"):
        await slots.drop(conn, name)
    for name in await publications.ls(conn, "shardman_"):
        await publications.drop(conn, name)


@step("node_schema")
@dataclass(frozen=True)
class NodeSchema:
    """The schema, and who the node is."""

    node: int

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        await install(conn)
        await self._same_hashes(run, conn)
        await conn.execute(
            "update shardman.local set cluster = %s, node_id = %s, lord = false, epoch = %s",
            (run.cluster_id, self.node, run.epoch),
        )

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
        if await value(conn, "select cluster from shardman.local") not in (None, run.cluster_id):
            return
        await conn.execute("select shardman.forget_tables(%s)", (run.cmd_id,))
        await conn.execute("select shardman.drop_routes()")
        await remove(conn)


@step("node_metadata")
@dataclass(frozen=True)
class NodeMetadata:
    """A copy of the metadata of one snapshot, and a subscription from that instant on."""

    node: int

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        name = names.meta_slot(run.cluster_id, self.node)
        keeper, snapshot = await export_snapshot(run, 0, name)
        try:
            await self._copy(run, conn, snapshot)
        finally:
            await keeper.close()
        await subscriptions.create(
            conn, name, await run.peer(0), names.meta_publication(run.cluster_id)
        )

    async def _copy(self, run: Run, conn: Connection, snapshot: str) -> None:
        source = await run.extra(0)
        await source.execute("begin isolation level repeatable read, read only")
        await source.execute(sql.SQL("set transaction snapshot {}").format(sql.Literal(snapshot)))
        async with conn.transaction():
            # The order of foreign keys does not matter to a copy; as with the apply worker.
            await conn.execute("set local session_replication_role = replica")
            for table in PUBLISHED:
                await _copy_table(source, conn, sql.Identifier("shardman", table))
        await source.close()

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


async def _copy_table(source: Connection, dest: Connection, table: sql.Identifier) -> None:
    async with (
        source.cursor() as out,
        dest.cursor() as into,
        out.copy(sql.SQL("copy {} to stdout").format(table)) as rows,
        into.copy(sql.SQL("copy {} from stdin").format(table)) as target,
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
        for _ in range(RECONCILE_TRIES):
            if not await value(conn, "select shardman.reconcile()"):
                return
            await asyncio.sleep(0.05)
        row = await (
            await conn.execute("select subject, problem, hint from shardman.drift limit 1")
        ).fetchone()
        what, why, hint = row or ("the node", "does not match the metadata", None)
        raise UserError(f"{what}: {why}", hint or "Put it right on the new node and try again")

    async def undo(self, run: Run) -> None:
        """What it made goes with the schema."""


@step("insert_node")
@dataclass(frozen=True)
class InsertNode:
    """The node is a member from now on."""

    node: int
    connstring: str

    async def do(self, run: Run) -> None:
        lord = await run.node(0)
        await lord.execute(
            "insert into shardman.nodes (id, connstring, worker_status, added_by, options, system_id)"
            " values (%s, %s, 'active', %s, %s, %s)",
            (
                self.node,
                self.connstring,
                run.cmd_id,
                json.dumps(run.memory["options"]),
                run.memory["system_id"],
            ),
        )
        if run.memory["password"]:
            await lord.execute(
                "insert into shardman.node_secrets (node_id, password) values (%s, %s)",
                (self.node, run.memory["password"]),
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
    """Takes our objects off a removed node, if it can be reached; its tables stay."""

    node: int

    async def do(self, run: Run) -> None:
        try:
            conn = await run.node(self.node)
            await drop_streams(conn)
            await remove(conn)
        except UserError:
            return  # It does not know this cluster any more: done before.
        except psycopg.OperationalError:
            run.say(
                f"Node {self.node} could not be reached: what is ours there stays. "
                "Adding it to a cluster again clears it."
            )

    async def undo(self, run: Run) -> None:
        """A finish step goes only forward."""


@step("drop_meta_slot")
@dataclass(frozen=True)
class DropMetaSlot:
    """Drops the lord's slot for a node that is gone: it would keep WAL for ever."""

    of: int

    async def do(self, run: Run) -> None:
        await slots.drop(await run.node(0), names.meta_slot(run.cluster_id, self.of))

    async def undo(self, run: Run) -> None:
        """A finish step goes only forward."""
