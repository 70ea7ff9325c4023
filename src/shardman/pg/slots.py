"""Logical replication slots on one server."""

from __future__ import annotations

import asyncio
import time

import psycopg
from psycopg import sql

from shardman.errors import Code, Temporary
from shardman.pg.bounded import unhurried
from shardman.pg.connection import Connection

#: How long a walsender that was told to end may take, in seconds: it is gone within milliseconds, or hangs.
END_S = 2.0


async def ls(conn: Connection, prefix: str) -> list[str]:
    """Names of the slots of this database that begin with prefix."""
    cur = await conn.execute(
        "select slot_name from pg_replication_slots"
        " where database = current_database() and starts_with(slot_name, %s) order by 1",
        (prefix,),
    )
    return [row[0] for row in await cur.fetchall()]


async def create_exporting(conn: Connection, name: str, *, temporary: bool = False) -> str:
    """Makes a slot and exports the snapshot of the instant from which it streams (PostgreSQL manual, 55.4,
    CREATE_REPLICATION_SLOT).

    Args:
        conn: a replication connection; the snapshot lives until it is closed or used again.
        temporary: the slot goes with the connection, too.

    Returns:
        The snapshot's name.
    """
    # It waits for every write transaction of the server.
    with unhurried(conn):
        cur = await conn.execute(
            sql.SQL("CREATE_REPLICATION_SLOT {}{} LOGICAL pgoutput (SNAPSHOT 'export')").format(
                sql.Identifier(name), sql.SQL(" TEMPORARY" if temporary else "")
            )
        )
        row = await cur.fetchone()
    assert row is not None
    return str(row[2])


async def drop(conn: Connection, name: str) -> bool:
    """Drops the slot if there is one, ending the walsender that still holds it.

    Raises:
        Temporary: a walsender hangs, whose process is named, or somebody takes the slot again and again.
    """
    dropped, user = False, None
    until = time.monotonic() + END_S
    while name in await ls(conn, name):
        if time.monotonic() > until:
            raise Temporary(
                f"the replication slot {name} is in use: process {user} hangs, let it go on (SIGCONT),"
                " or restart its server",
                code=Code.REPLICATION_STALLED,
            )
        try:
            await conn.execute("select pg_drop_replication_slot(%s)", (name,))
            dropped = True
        except psycopg.errors.ObjectInUse:
            user = await _end_user(conn, name) or user
            await asyncio.sleep(0.02)
    return dropped


async def _end_user(conn: Connection, name: str) -> int | None:
    """Ends whoever uses a slot now; the process."""
    cur = await conn.execute(
        "select active_pid, pg_terminate_backend(active_pid) from pg_replication_slots"
        " where slot_name = %s and active_pid is not null",
        (name,),
    )
    row = await cur.fetchone()
    return int(row[0]) if row else None


async def confirmed(conn: Connection, name: str, upto: str) -> bool:
    """Whether the receiver of a slot has confirmed all up to a position; lets it hear of it.

    Args:
        upto: a position of the WAL, as text.
    """
    await conn.execute("select shardman.emit()")
    cur = await conn.execute(
        "select from pg_replication_slots where slot_name = %s and confirmed_flush_lsn >= %s::pg_lsn",
        (name, upto),
    )
    return await cur.fetchone() is not None
