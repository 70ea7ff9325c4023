"""Makes a database the lord's of a new cluster."""

from __future__ import annotations

import asyncio
import json
import secrets
import string
import time
from dataclasses import dataclass

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.conninfo import make_conninfo

from shardman import names
from shardman.errors import Code, UserError
from shardman.pg import publications, strangers
from shardman.pg.connect import PINNED
from shardman.pg.connection import Connection
from shardman.pg.conninfo import address_only, parse, password_of, resolved, without_secrets
from shardman.pg.schema import install
from shardman.pg.server import requirements
from shardman.pg.wording import unreachable

#: Metadata that every worker has a copy of, in the order of foreign keys. The journal is among them, so
#: that a worker's copy can become the lord's.
PUBLISHED = (
    "nodes",
    "node_secrets",
    "road_secret",
    "tables",
    "partitions",
    "shared_tables",
    "shared_copies",
    "settings",
    "cmd_log",
    "cmd_opts",
    "cmd_secrets",
    "cmd_steps",
    "cancel_requests",
    "node_returns",
    "node_cleanings",
    "standby_intents",
    "channel_changes",
)
LOCK_TIMEOUT = "300ms"
#: How long transactions that use what is to be changed are waited for.
PATIENCE_S = 10.0
PAUSE_S = 0.2
_USERS = """
select string_agg(
           distinct format('%s (pid %s, %s)', a.usename, a.pid,
                           coalesce(host(a.client_addr), 'a local socket')), ', ')
  from pg_locks l join pg_class c on c.oid = l.relation join pg_stat_activity a on a.pid = l.pid
 where l.granted and l.database = (select oid from pg_database where datname = current_database())
   and c.relnamespace = to_regnamespace('shardman') and a.pid <> pg_backend_pid()
   and a.application_name !~ '^shardman'
"""
#: The setting that remembers an address given by --advertise.
ADVERTISED = "advertise"


@dataclass(frozen=True)
class _Address:
    """How other nodes reach the lord."""

    connstring: str
    options: dict[str, str]
    password: str | None


async def initialize(dsn: str, advertise: str | None = None) -> str:
    """Installs the schema and makes the database the lord's; safe to repeat; upgrades an older schema.

    Args:
        dsn: of the database.
        advertise: how other nodes reach it, where that differs from dsn; remembered.

    Returns:
        The cluster's id.

    Raises:
        UserError: the server cannot be reached or does not suit, or the database is a worker's.
    """
    given = parse(dsn)
    try:
        conn = await AsyncConnection.connect(
            make_conninfo(dsn, application_name="shardman init", connect_timeout=10),
            autocommit=True,
        )
    except psycopg.OperationalError as error:
        raise unreachable(given, error) from None
    async with conn:
        await conn.execute(PINNED)
        # No worker confirms what its older schema has no place for: not before it is brought up to date.
        await conn.execute("set synchronous_commit = local")
        await requirements(conn)
        await strangers.refuse_schema(conn)
        await _refuse_worker(conn)
        return await _give_way(conn, dsn, advertise)


async def _give_way(conn: Connection, dsn: str, advertise: str | None) -> str:
    """Changes what is there in one transaction, again and again: others do not wait behind us for somebody's
    open transaction that has read one of our views.

    Raises:
        UserError: such a transaction does not end.
    """
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            async with conn.transaction():
                await conn.execute("select set_config('lock_timeout', %s, true)", (LOCK_TIMEOUT,))
                await install(conn)
                return await _become_lord(conn, dsn, advertise)
        except psycopg.errors.LockNotAvailable as error:
            if time.monotonic() >= until:
                users = await (await conn.execute(_USERS)).fetchone()
                assert users is not None
                raise UserError(
                    "what is to be changed in the schema shardman is in use by"
                    f" {users[0] or 'somebody who has just ended'}",
                    "End that session, or let it commit, and try again",
                    code=Code.BUSY,
                ) from error
            await asyncio.sleep(PAUSE_S)


async def _refuse_worker(conn: Connection) -> None:
    cur = await conn.execute("select to_regclass('shardman.local') is not null")
    if await cur.fetchone() != (True,):
        return
    row = await (await conn.execute("select cluster, node_id, lord from shardman.local")).fetchone()
    if row is not None and row[0] is not None and not row[2]:
        raise UserError(
            f"this database is worker {row[1]} of cluster {row[0]}",
            "Remove it there with rm_node, or choose another database",
            code=Code.DATABASE_TAKEN,
        )


async def _become_lord(conn: Connection, dsn: str, advertise: str | None) -> str:
    row = await (await conn.execute("select cluster from shardman.local for update")).fetchone()
    assert row is not None
    await _refuse_worker(conn)
    cluster: str | None = row[0]
    if cluster is None:
        cluster = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(6))
        await conn.execute(
            "update shardman.local set cluster = %s, node_id = 0, lord = true", (cluster,)
        )
    await conn.execute("select shardman.set_database()")
    await conn.execute("select shardman.ensure_road_secret()")
    await _describe(conn, dsn, advertise)
    await publish_metadata(conn, cluster)
    return cluster


async def publish_metadata(conn: Connection, cluster: str) -> bool:
    """Lets workers subscribe to the metadata of the lord's database; whether they could not."""
    tables = [sql.Identifier("shardman", table) for table in PUBLISHED]
    return await publications.ensure(conn, names.meta_publication(cluster), tables)


async def _describe(conn: Connection, dsn: str, advertise: str | None) -> None:
    """Writes down how other nodes reach the lord; touches nothing that is right already."""
    if advertise is not None:
        await conn.execute(
            "insert into shardman.settings values (%s, %s)"
            " on conflict (name) do update set value = excluded.value",
            (ADVERTISED, without_secrets(advertise)),
        )
    elif await _was_advertised(conn):
        return
    address = _address(conn, dsn, advertise)
    await conn.execute(
        "insert into shardman.nodes as n (id, connstring, lord, options, system_id)"
        " values ((select node_id from shardman.local), %(connstring)s, true, %(options)s,"
        "         (select system_identifier::text from pg_control_system()))"
        " on conflict (id) do update set connstring = excluded.connstring,"
        "        options = excluded.options, system_id = excluded.system_id"
        "  where (n.connstring, n.options, n.system_id)"
        "     is distinct from (excluded.connstring, excluded.options, excluded.system_id)",
        {"connstring": address.connstring, "options": json.dumps(address.options)},
    )
    await _remember_password(conn, address.password)


async def _was_advertised(conn: Connection) -> bool:
    cur = await conn.execute("select from shardman.settings where name = %s", (ADVERTISED,))
    return await cur.fetchone() is not None


def _address(conn: Connection, dsn: str, advertise: str | None) -> _Address:
    live = _Address(without_secrets(dsn), resolved(conn, dsn), password_of(conn))
    if advertise is None:
        return live
    params = parse(advertise)
    if "service" in params:
        raise UserError(
            "the nodes cannot look up the service given by --advertise",
            "Write out its host and port",
            code=Code.BAD_CONNECTION_STRING,
        )
    base = {"dbname": live.options["dbname"], "user": live.options["user"]}
    return _Address(
        without_secrets(advertise),
        base | address_only(params),
        params.get("password", live.password),
    )


async def _remember_password(conn: Connection, password: str | None) -> None:
    if password is None:
        await conn.execute(
            "delete from shardman.node_secrets where node_id = (select node_id from shardman.local)"
        )
        return
    await conn.execute(
        "insert into shardman.node_secrets as s (node_id, password)"
        " values ((select node_id from shardman.local), %s)"
        " on conflict (node_id) do update set password = excluded.password"
        "  where s.password <> excluded.password",
        (password,),
    )
