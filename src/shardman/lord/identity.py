"""Whose database this is: the lord's, a worker's, or a former lord's that was replaced while it was away."""

from __future__ import annotations

import contextlib

import psycopg
from psycopg.conninfo import make_conninfo

from shardman.errors import Code, UserError
from shardman.lord.sessions import open_session
from shardman.pg import strangers
from shardman.pg.connection import Connection
from shardman.pg.retirement import retire
from shardman.pg.schema import is_current
from shardman.sql.loader import queries
from shardman.steps.catalog import value


class NotLord(UserError):
    """A shardlord's database is not a lord's."""


async def check(dsn: str) -> None:
    """Looks whether a database can be a shardlord's. One that is on its way up passes.

    Raises:
        NotLord: it is not a lord's.
        UserError: it has the schema of another version, or dsn names another role than the cluster's.
    """
    try:
        conn = await open_session(dsn, "shardman")
    except psycopg.OperationalError:
        return
    try:
        row = None
        if await value(conn, queries("identity")["has_tables"]):
            row = await (await conn.execute(queries("identity")["self"])).fetchone()
        if row is None or not row[0]:
            raise _no_lord(*row[1:] if row else (None, None))
        if not await is_current(conn):
            raise UserError(
                "the lord's database has the schema of another version",
                "Run shardman init with the newest version, and only shardlords of that",
                code=Code.SCHEMA_VERSION,
            )
        # As another role it would make what the cluster's could not change.
        await strangers.refuse_schema(conn)
        await _refuse_copy(conn)
    finally:
        await conn.close()


async def _refuse_copy(conn: Connection) -> None:
    """Looks for our own session at the address of the lord. Where nothing answers there, nothing is known.

    Raises:
        NotLord: another lord of this cluster answers there, or the database was restored from a dump.
    """
    copied = bool(await value(conn, "select shardman.is_copy()"))
    row = await (await conn.execute(queries("disarm")["address"])).fetchone()
    if row is not None and not copied:
        options, password, pid, started = row
        secret = {} if password is None else {"password": password}
        with contextlib.suppress(psycopg.Error):
            there = await open_session(make_conninfo("", **options, **secret), "shardman")
            try:
                cur = await there.execute(queries("disarm")["session"], (pid, started))
                other = await cur.fetchone() is None
                mine, theirs = [
                    await (await c.execute(queries("identity")["self"])).fetchone()
                    for c in (conn, there)
                ]
                copied = other and mine == theirs
            finally:
                await there.close()
    if copied:
        raise NotLord(
            "this database is a copy of the lord's",
            "Name the lord's; if that is lost, bring it back under its address, or promote a worker with"
            " shardman promote-lord",
            code=Code.SERVER_IS_A_COPY,
        )


def _no_lord(cluster: str | None, node: int | None) -> NotLord:
    if cluster is None:
        return NotLord(
            "this database is not a lord's",
            'Make it one with "shardman init" first',
            code=Code.NOT_THE_LORD,
        )
    if node == 0:
        return NotLord(
            f"this database was the lord's of cluster {cluster} and is not any more",
            "Run shardman lord with the database that was promoted; add_node makes this one a worker",
            code=Code.NOT_THE_LORD,
        )
    return NotLord(
        f"this database is worker {node} of cluster {cluster}",
        "Give the lord's database, or make this one the lord's with shardman promote-lord",
        code=Code.DATABASE_TAKEN,
    )


async def is_decided(dsn: str) -> bool:
    """Whether another database is the lord's: a promotion that has begun here may be taken back."""
    try:
        conn = await open_session(dsn, "shardman")
    except psycopg.OperationalError:
        return False
    try:
        return not await value(conn, queries("identity")["is_lord"]) or await was_replaced(conn)
    except psycopg.OperationalError:
        return False
    except psycopg.Error:
        return True  # It has not even our tables.
    finally:
        await conn.close()


async def step_down(dsn: str) -> None:
    """Lets a former lord's database know that another one was promoted while it was away."""
    with contextlib.suppress(psycopg.Error):
        conn = await open_session(dsn, "shardman")
        try:
            if await was_replaced(conn):
                await retire(conn, await cluster_of(conn))
        finally:
            await conn.close()


async def was_replaced(conn: Connection) -> bool:
    """Whether a node knows another lord. A promotion that has only begun may fail: this one stays then.

    Args:
        conn: a session on this shardlord's database.
    """
    mine = await (await conn.execute(queries("identity")["term"])).fetchone()
    cur = await conn.execute(queries("identity")["peers"])
    for options, password in await cur.fetchall():
        secret = {} if password is None else {"password": password}
        with contextlib.suppress(psycopg.Error):
            peer = await open_session(make_conninfo("", **options, **secret), "shardman")
            try:
                theirs = await (await peer.execute(queries("identity")["term"])).fetchone()
            finally:
                await peer.close()
            if mine and theirs and theirs[0] > mine[0] and theirs[1] != mine[1]:
                return True
    return False


async def cluster_of(conn: Connection) -> str:
    """The cluster that a database belongs to."""
    return str(await value(conn, "select cluster from shardman.local"))
