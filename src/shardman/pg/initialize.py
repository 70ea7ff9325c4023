"""Makes a database the lord's of a new cluster."""

from __future__ import annotations

import json
import secrets
import string
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.conninfo import make_conninfo

from shardman import names
from shardman.errors import UserError
from shardman.pg import publications
from shardman.pg.connect import PINNED, address_only, parse, password_of, resolved, without_secrets
from shardman.pg.reach import unreachable
from shardman.pg.schema import install
from shardman.pg.server import requirements

#: Metadata that every worker has a copy of, in the order of foreign keys. The journal is among them, so
#: that a worker's copy can become the lord's.
PUBLISHED = (
    "nodes",
    "node_secrets",
    "tables",
    "partitions",
    "settings",
    "cmd_log",
    "cmd_opts",
    "cmd_secrets",
    "cmd_steps",
)
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
        await requirements(conn)
        await _refuse_worker(conn)
        async with conn.transaction():
            await install(conn)
            return await _become_lord(conn, dsn, advertise)


async def _refuse_worker(conn: AsyncConnection[Any]) -> None:
    cur = await conn.execute("select to_regclass('shardman.local') is not null")
    if await cur.fetchone() != (True,):
        return
    row = await (await conn.execute("select cluster, node_id, lord from shardman.local")).fetchone()
    if row is not None and row[0] is not None and not row[2]:
        raise UserError(
            f"this database is worker {row[1]} of cluster {row[0]}",
            "Remove it there with rm_node, or choose another database",
        )


async def _become_lord(conn: AsyncConnection[Any], dsn: str, advertise: str | None) -> str:
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
    await _describe(conn, dsn, advertise)
    await publications.ensure(
        conn,
        names.meta_publication(cluster),
        [sql.Identifier("shardman", table) for table in PUBLISHED],
    )
    return cluster


async def _describe(conn: AsyncConnection[Any], dsn: str, advertise: str | None) -> None:
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


async def _was_advertised(conn: AsyncConnection[Any]) -> bool:
    cur = await conn.execute("select from shardman.settings where name = %s", (ADVERTISED,))
    return await cur.fetchone() is not None


def _address(conn: AsyncConnection[Any], dsn: str, advertise: str | None) -> _Address:
    live = _Address(without_secrets(dsn), resolved(conn, dsn), password_of(conn))
    if advertise is None:
        return live
    params = parse(advertise)
    if "service" in params:
        raise UserError(
            "the nodes cannot look up the service given by --advertise",
            "Write out its host and port",
        )
    base = {"dbname": live.options["dbname"], "user": live.options["user"]}
    return _Address(
        without_secrets(advertise),
        base | address_only(params),
        params.get("password", live.password),
    )


async def _remember_password(conn: AsyncConnection[Any], password: str | None) -> None:
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
