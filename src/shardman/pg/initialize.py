"""Makes a database the lord's of a new cluster."""

from __future__ import annotations

import json
import secrets
import string
from typing import Any

import psycopg
from psycopg import AsyncConnection, sql

from shardman import names
from shardman.errors import UserError
from shardman.pg import publications
from shardman.pg.connect import password_of, resolved, without_secrets
from shardman.pg.reach import scrub
from shardman.pg.schema import install
from shardman.pg.server import LORD, requirements

#: Metadata that every worker has a copy of.
PUBLISHED = ("nodes", "node_secrets", "tables", "partitions", "settings", "cmd_log", "cmd_opts")


async def initialize(dsn: str, advertise: str | None = None) -> str:
    """Installs the schema and makes the database the lord's; safe to repeat; upgrades an older schema.

    Args:
        dsn: of the database.
        advertise: how other nodes reach it, where that differs from dsn.

    Returns:
        The cluster's id.

    Raises:
        UserError: the server cannot be reached or does not suit, or the database is a worker's.
    """
    try:
        conn = await AsyncConnection.connect(dsn, autocommit=True, application_name="shardman init")
    except psycopg.OperationalError as error:
        raise UserError(
            f"cannot reach the server: {scrub(' '.join(str(error).split()))}",
            "Check the connection string and that the server runs",
        ) from error
    try:
        await requirements(conn, LORD)
        await install(conn)
        async with conn.transaction():
            return await _become_lord(conn, dsn, advertise)
    finally:
        await conn.close()


async def _become_lord(conn: AsyncConnection[Any], dsn: str, advertise: str | None) -> str:
    row = await (
        await conn.execute("select cluster, lord from shardman.local for update")
    ).fetchone()
    assert row is not None
    cluster: str | None = row[0]
    if cluster is not None and not row[1]:
        raise UserError(
            f"this database is a worker of cluster {cluster}",
            "Remove it there with rm_node, or choose another database",
        )
    if cluster is None:
        cluster = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(6))
        await conn.execute(
            "update shardman.local set cluster = %s, node_id = 0, lord = true", (cluster,)
        )
    await _describe(conn, dsn, advertise)
    await publications.ensure(
        conn,
        names.meta_publication(cluster),
        [sql.Identifier("shardman", table) for table in PUBLISHED],
    )
    return cluster


async def _describe(conn: AsyncConnection[Any], dsn: str, advertise: str | None) -> None:
    """Writes down how other nodes reach the lord."""
    options = resolved(conn, dsn)
    password = password_of(conn)
    if advertise is not None:
        params = psycopg.conninfo.conninfo_to_dict(advertise)
        password = str(params.pop("password", None) or password or "") or None
        options = {"user": options["user"], "dbname": options["dbname"]}
        options |= {k: str(v) for k, v in params.items() if v is not None}
    await conn.execute(
        "insert into shardman.nodes (id, connstring, lord, options, system_id)"
        " values (0, %(connstring)s, true, %(options)s,"
        "         (select system_identifier::text from pg_control_system()))"
        " on conflict (id) do update set connstring = excluded.connstring, options = excluded.options",
        {"connstring": without_secrets(advertise or dsn), "options": json.dumps(options)},
    )
    await conn.execute("delete from shardman.node_secrets where node_id = 0")
    if password:
        await conn.execute(
            "insert into shardman.node_secrets (node_id, password) values (0, %s)", (password,)
        )
