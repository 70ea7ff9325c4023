"""Subscriptions on one server. Their slots are made and dropped apart (`slots`): so a subscription can
be dropped whose publisher is dead."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psycopg
from psycopg import sql

from shardman.errors import Code, Temporary
from shardman.pg import strangers
from shardman.pg.connection import Connection

#: How long a worker that is to end may take, in seconds: it does within milliseconds, or hangs.
END_S = 2.0


async def ls(conn: Connection, prefix: str) -> list[str]:
    """Names of the subscriptions of this database that begin with prefix."""
    cur = await conn.execute(
        "select s.subname from pg_subscription s join pg_database d on d.oid = s.subdbid"
        " where d.datname = current_database() and starts_with(s.subname, %s) order by 1",
        (prefix,),
    )
    return [row[0] for row in await cur.fetchall()]


async def tables(conn: Connection, name: str) -> list[str]:
    """The tables of this server that a subscription writes to, as the metadata writes names."""
    cur = await conn.execute(
        "select shardman.relation_text(n.nspname, c.relname) from pg_subscription s"
        " join pg_database d on d.oid = s.subdbid and d.datname = current_database()"
        " join pg_subscription_rel r on r.srsubid = s.oid join pg_class c on c.oid = r.srrelid"
        " join pg_namespace n on n.oid = c.relnamespace where s.subname = %s",
        (name,),
    )
    return [row[0] for row in await cur.fetchall()]


async def feeding(conn: Connection, table: str) -> list[str]:
    """The subscriptions that write to a table.

    Args:
        table: as the metadata writes names.
    """
    cur = await conn.execute(
        "select s.subname from pg_subscription_rel r join pg_subscription s on s.oid = r.srsubid"
        " where r.srrelid = shardman.find_relation(%s) order by 1",
        (table,),
    )
    return [row[0] for row in await cur.fetchall()]


async def create(
    conn: Connection,
    name: str,
    conninfo: str,
    publication: str,
    *,
    enabled: bool = True,
    two_phase: bool = False,
) -> bool:
    """Subscribes to a publication through the slot of the subscription's own name, from the slot's position
    on.

    Args:
        conninfo: how this server reaches the publisher, password included.
        enabled: false: nothing is received, and the slot need not be there, before `enable`.
        two_phase: what is prepared on the publisher is prepared here, too.

    Raises:
        UserError: a stranger has one of this name.
    """
    await strangers.refuse_subscription(conn, name)
    if name in await ls(conn, name):
        return False
    # Confirmed positions follow within milliseconds with "local", and only then; see the manual on
    # the subscription parameter synchronous_commit.
    await conn.execute(
        sql.SQL(
            "create subscription {} connection {} publication {} with (create_slot = false,"
            " slot_name = {}, copy_data = false, synchronous_commit = 'local', enabled = {}, two_phase = {})"
        ).format(
            sql.Identifier(name),
            sql.Literal(conninfo),
            sql.Identifier(publication),
            sql.Literal(name),
            sql.SQL("true" if enabled else "false"),
            sql.SQL("true" if two_phase else "false"),
        )
    )
    return True


async def refresh(conn: Connection, name: str, guard: Connection, published: list[str]) -> None:
    """Lets the subscription, if there is one, know which tables its publication has.

    Args:
        guard: see `held`.
        published: the tables of the publication, as the metadata writes names.

    Raises:
        psycopg.errors.InsufficientPrivilege: one of them is somebody else's on this server.
    """
    if name not in await ls(conn, name):
        return
    async with held(guard, name, published):
        await conn.execute(
            sql.SQL("alter subscription {} refresh publication with (copy_data = false)").format(
                sql.Identifier(name)
            )
        )


@asynccontextmanager
async def held(guard: Connection, name: str, tables: list[str]) -> AsyncIterator[None]:
    """While a subscription learns of tables, keeps those of their names on this server from being exchanged.

    It finds them by name, and on PostgreSQL 15 their triggers run as the cluster's role: they have to be
    the cluster's own, unless it knows them already.

    Args:
        guard: one more session on the same server, with no transaction open.
        tables: as the metadata writes names.

    Raises:
        psycopg.errors.InsufficientPrivilege: one is somebody else's, who put it in the place of ours.
    """
    # Before the transaction: what it reads it keeps locked, and the server changes this catalog.
    cur = await guard.execute("select shardman.fed_by(%s)", (name,))
    row = await cur.fetchone()
    assert row is not None
    async with guard.transaction():
        await guard.execute("select shardman.hold_own(%s, %s::oid[])", (tables, row[0]))
        yield


async def enable(conn: Connection, name: str) -> None:
    """Takes `disable` back."""
    if name in await ls(conn, name):
        await conn.execute(sql.SQL("alter subscription {} enable").format(sql.Identifier(name)))


async def set_two_phase(conn: Connection, name: str) -> None:
    """Lets a subscription that is disabled begin with two phases once it is enabled. From PostgreSQL 18 on."""
    await conn.execute(
        sql.SQL("alter subscription {} set (two_phase = true)").format(sql.Identifier(name))
    )


async def disable(conn: Connection, name: str) -> None:
    """Disables the subscription if there is one, and waits until none of its workers is left: they
    are gone within milliseconds, but not at once.

    Raises:
        Temporary: one hangs, whose process is named.
    """
    if name not in await ls(conn, name):
        return
    await conn.execute(sql.SQL("alter subscription {} disable").format(sql.Identifier(name)))
    until = time.monotonic() + END_S
    while pids := await _end_workers(conn, name):
        if time.monotonic() > until:
            raise Temporary(
                f"a worker of the subscription {name} does not end: process"
                f" {', '.join(map(str, pids))} hangs, let it go on (SIGCONT), or restart its server",
                code=Code.REPLICATION_STALLED,
            )
        await asyncio.sleep(0.02)


async def _end_workers(conn: Connection, name: str) -> list[int]:
    """Tells the workers of a subscription to end; those that are still there."""
    cur = await conn.execute(
        "select pid, pg_terminate_backend(pid) from pg_stat_subscription"
        " where subname = %s and pid is not null",
        (name,),
    )
    return [int(row[0]) for row in await cur.fetchall()]


async def drop(conn: Connection, name: str) -> bool:
    """Drops the subscription if there is one; its slot stays on the publisher.

    The server waits for its workers without an end, and holds a lock meanwhile that no other subscription of
    the server can do without. So they are waited for before.

    What it has left prepared would stay for ever, as nobody could tell this server what became of it: it is
    rolled back. Whoever needs it has ended it before.

    Raises:
        Temporary: a worker hangs. The subscription stays, disabled.
    """
    if name not in await ls(conn, name):
        return False
    await disable(conn, name)
    for gid in await _left_prepared(conn, name):
        with suppress(psycopg.errors.UndefinedObject):
            await conn.execute(sql.SQL("rollback prepared {}").format(sql.Literal(gid)))
    subscription = sql.Identifier(name)
    await conn.execute(sql.SQL("alter subscription {} set (slot_name = none)").format(subscription))
    await conn.execute(sql.SQL("drop subscription {}").format(subscription))
    return True


async def _left_prepared(conn: Connection, name: str) -> list[str]:
    """Names of the transactions that a subscription has prepared: PostgreSQL makes them from its number."""
    cur = await conn.execute(
        "select x.gid from pg_prepared_xacts x join pg_subscription s"
        " on starts_with(x.gid, format('pg_gid_%%s_', s.oid)) join pg_database d on d.oid = s.subdbid"
        " where x.database = current_database() and d.datname = x.database and s.subname = %s",
        (name,),
    )
    return [row[0] for row in await cur.fetchall()]
