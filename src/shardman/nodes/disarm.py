"""Makes a copy of a node inert: nothing leads from it into the cluster, and it takes nothing from there.

Each part can be cut short and done again. What could harm the cluster goes first: subscriptions, whose slots
are those of the living node, are let go without them.
"""

from __future__ import annotations

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from shardman import names
from shardman.errors import Code, UserError
from shardman.pg import publications, slots, standby_names, subscriptions
from shardman.pg.connect import connect_async
from shardman.pg.connection import Connection
from shardman.sql.loader import queries

_PREFIX = "shardman_"


async def disarm(dsn: str, *, force: bool = False) -> str:
    """Makes a database that is a copy of a node inert; safe to repeat.

    Args:
        dsn: of the copy.
        force: also where nothing tells it from the node itself.

    Returns:
        What it was, for a person to read.

    Raises:
        UserError: it is the node itself, or may be; or it was no node's.
    """
    conn = await connect_async(dsn)
    async with conn:
        # The copy of a server waits for the node's replicas, which will never confirm to it.
        await conn.execute("set synchronous_commit = local")
        row = await _one(conn, queries("disarm")["who"])
        if row is None or not row[0]:
            raise UserError(
                "this database is no copy of a node",
                "Name one that has the schema shardman",
                code=Code.NOT_IN_CLUSTER,
            )
        cluster, node, restored = await _one(conn, queries("disarm")["identity"]) or (None,) * 3
        if cluster is not None and not restored and not force:
            await _refuse_original(conn, node)
        await _let_go(conn)
        await conn.execute("select shardman.disarm()")
        if cluster is not None and not restored:
            # A copy of the whole server: its commits would wait for the node's replicas.
            await standby_names.set_replicas(conn, "", [])
        return f"node {node} of cluster {cluster}" if cluster else "a node"


async def _one(conn: Connection, query: str) -> tuple[object, ...] | None:
    return await (await conn.execute(query.encode())).fetchone()


async def _refuse_original(conn: Connection, node: object) -> None:
    """Looks for our own session at the address of the node.

    Raises:
        UserError: it is seen there, or nothing answers there.
    """
    row = await _one(conn, queries("disarm")["address"])
    options, password, pid, started = row or ({}, None, 0, None)
    assert isinstance(options, dict)
    secret = {} if password is None else {"password": str(password)}
    try:
        there = await psycopg.AsyncConnection.connect(
            make_conninfo("", **{**options, **secret, "connect_timeout": 5}), autocommit=True
        )
    except psycopg.Error:
        raise UserError(
            f"node {node} does not answer at its address, so this may be the node itself",
            "Start the node, or disarm this database with --force if you know that it is a copy",
            code=Code.NODE_UNREACHABLE,
        ) from None
    async with there:
        cur = await there.execute(queries("disarm")["session"], (pid, started))
        if await cur.fetchone() is not None:
            raise UserError(
                f"this is node {node} itself, no copy of it",
                "Name the copy; a node leaves its cluster by rm_node",
                code=Code.DATABASE_TAKEN,
            )


async def _let_go(conn: Connection) -> None:
    cur = await conn.execute(
        "select gid from pg_prepared_xacts where database = current_database()"
    )
    for gid in [row[0] for row in await cur.fetchall() if names.is_ours(row[0])]:
        await conn.execute(sql.SQL("rollback prepared {}").format(sql.Literal(gid)))
    for name in filter(names.is_ours, await subscriptions.ls(conn, _PREFIX)):
        await subscriptions.drop(conn, name)
    for name in filter(names.is_ours, await slots.ls(conn, _PREFIX)):
        await slots.drop(conn, name)
    for name in filter(names.is_ours, await publications.ls(conn, _PREFIX)):
        await publications.drop(conn, name)
