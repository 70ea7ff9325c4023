"""Whether a server can be a node: everything that is known before anything is made there."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from shardman import names
from shardman.errors import Code, UserError
from shardman.pg import strangers
from shardman.pg.connection import Connection
from shardman.pg.conninfo import parse, password_of, resolved, unreadable
from shardman.pg.server import requirements
from shardman.pg.text_rules import text_rules
from shardman.pg.wording import unreachable
from shardman.steps.base import PrepareStep, Run, Scope, step
from shardman.steps.catalog import value
from shardman.steps.handed import NewServer
from shardman.steps.nodes.reach import reached_by_all


@step("check_node")
@dataclass(frozen=True)
class CheckNode(PrepareStep):
    """Whether the server can take part; finds out how others reach it."""

    node: int

    def scope(self) -> Scope:
        return Scope.of([self.node])

    async def do(self, run: Run) -> None:
        conn = await self._connect(run)
        await requirements(conn)
        await strangers.refuse_schema(conn)
        await _not_a_member(run, conn)
        await _no_strangers(run, conn, self.node)
        await _same_text(run, conn)
        await _no_file_copy(run, conn)
        await _room_on_the_lord(run)
        server = NewServer(
            options=resolved(conn, await run.conninfo(self.node)),
            password=password_of(conn),
            system_id=await _system_id(conn),
        )
        await reached_by_all(run, conn, server)
        run.handed.server = server

    async def _connect(self, run: Run) -> Connection:
        try:
            return await run.node(self.node)
        except psycopg.OperationalError as error:
            raise unreachable(parse(await run.conninfo(self.node)), error) from None
        except psycopg.ProgrammingError:
            raise unreadable() from None


async def _no_strangers(run: Run, conn: Connection, node: int) -> None:
    name = names.meta_slot(run.cluster_id, node)
    await strangers.refuse_servers(conn)
    await strangers.refuse_subscription(conn, name)
    await strangers.refuse_slot(await run.node(0), name)


async def _system_id(conn: Connection) -> str:
    return str(await value(conn, "select system_identifier::text from pg_control_system()"))


async def _not_a_member(run: Run, conn: Connection) -> None:
    if not await value(conn, "select to_regclass('shardman.local') is not null"):
        return
    row = await (await conn.execute("select cluster, node_id, lord from shardman.local")).fetchone()
    if row is None:
        return
    cluster, node_id, lord = row
    if lord and cluster != run.cluster_id:
        raise UserError(
            f"this database is the lord's of cluster {cluster}",
            "Give another database",
            code=Code.DATABASE_TAKEN,
        )
    if lord and node_id == 0:
        known = await value(await run.node(0), "select connstring from shardman.nodes where lord")
        raise UserError(
            f"this database is the lord's, which the nodes know as {known}",
            "Give that connection string to make it a worker too",
            code=Code.NODE_EXISTS,
        )
    if cluster == run.cluster_id and await value(
        await run.node(0),
        "select exists (select from shardman.nodes where id = %s and worker_status <> 'removed')",
        node_id,
    ):
        raise UserError(
            f"this database is node {node_id} already", "See shardman.nodes", code=Code.NODE_EXISTS
        )


async def _same_text(run: Run, conn: Connection) -> None:
    """Text must hash alike everywhere, and sort alike: nodes merge what others have sorted."""
    mine, its = await text_rules(await run.node(0)), await text_rules(conn)
    for what, its_own, ours in its.differences(mine):
        raise UserError(
            f"the database's {what} is {its_own}, the lord's is {ours}",
            "Text would hash or sort differently: make the database like the lord's",
            code=Code.SERVER_UNSUITABLE,
        )
    if mine.library != its.library:
        run.say(
            f"The libraries that sort text differ (lord {mine.library}, new node {its.library}): "
            "order by text may differ between the nodes."
        )


async def _no_file_copy(run: Run, conn: Connection) -> None:
    lord = await run.node(0)
    cur = await lord.execute(
        "select id from shardman.nodes where system_id = %s"
        " and (lord or worker_status <> 'removed') order by id",
        (await _system_id(conn),),
    )
    started = "select pg_postmaster_start_time()::text"
    mine = await value(conn, started)
    for (twin,) in await cur.fetchall():
        try:
            other = await value(await run.node(twin), started)
        except psycopg.OperationalError:
            raise UserError(
                f"the server has the system identifier of node {twin}, which is down:"
                " it may be a file copy of it",
                f"Start node {twin} and try again, or make the server with an initdb of its own",
                code=Code.SERVER_IS_A_COPY,
            ) from None
        # Two databases of one server have one identifier by right.
        if other != mine:
            raise UserError(
                f"the server's data folder is a copy of node {twin}'s (same system identifier)",
                "Make it with an initdb of its own",
                code=Code.SERVER_IS_A_COPY,
            )


async def _room_on_the_lord(run: Run) -> None:
    row = await (
        await (await run.node(0)).execute(
            "select (select count(*) from pg_replication_slots),"
            " current_setting('max_replication_slots')::int,"
            " (select count(*) from pg_stat_replication), current_setting('max_wal_senders')::int"
        )
    ).fetchone()
    assert row is not None
    for used, most, name in ((*row[:2], "max_replication_slots"), (*row[2:], "max_wal_senders")):
        if used >= most:
            raise UserError(
                f"on the lord's server all of {name} = {most} are in use",
                f"Raise {name} there and restart it",
                code=Code.SERVER_FULL,
            )
