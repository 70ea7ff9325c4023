"""Subscriptions on one server. Their slots are made and dropped apart (`slots`): so a subscription can
be dropped whose publisher is dead."""

from __future__ import annotations

import asyncio
from typing import Any

from psycopg import AsyncConnection, sql

from shardman.errors import Temporary

#: Looks of 20 ms each at a worker that is to end.
_TRIES = 250


async def ls(conn: AsyncConnection[Any], prefix: str) -> list[str]:
    """Names of the subscriptions of this database that begin with prefix."""
    cur = await conn.execute(
        "select s.subname from pg_subscription s join pg_database d on d.oid = s.subdbid"
        " where d.datname = current_database() and starts_with(s.subname, %s) order by 1",
        (prefix,),
    )
    return [row[0] for row in await cur.fetchall()]


async def tables(conn: AsyncConnection[Any], name: str) -> list[str]:
    """The tables of this server that a subscription writes to, as the metadata writes names."""
    cur = await conn.execute(
        "select shardman.relation_text(n.nspname, c.relname) from pg_subscription s"
        " join pg_database d on d.oid = s.subdbid and d.datname = current_database()"
        " join pg_subscription_rel r on r.srsubid = s.oid join pg_class c on c.oid = r.srrelid"
        " join pg_namespace n on n.oid = c.relnamespace where s.subname = %s",
        (name,),
    )
    return [row[0] for row in await cur.fetchall()]


async def feeding(conn: AsyncConnection[Any], table: str) -> str | None:
    """The subscriptions that write to a table, for a person to read; None when there are none.

    Args:
        table: as the metadata writes names.
    """
    cur = await conn.execute(
        "select string_agg(s.subname, ', ') from pg_subscription_rel r"
        " join pg_subscription s on s.oid = r.srsubid"
        " where r.srrelid = shardman.find_relation(%s)",
        (table,),
    )
    row = await cur.fetchone()
    return row[0] if row else None


async def create(conn: AsyncConnection[Any], name: str, conninfo: str, publication: str) -> bool:
    """Subscribes to a publication through the slot of the subscription's own name, which exists
    already, from the slot's position on.

    Args:
        conninfo: how this server reaches the publisher, password included.
    """
    if name in await ls(conn, name):
        return False
    # Confirmed positions follow within milliseconds with "local", and only then; see the manual on
    # the subscription parameter synchronous_commit.
    await conn.execute(
        sql.SQL(
            "create subscription {} connection {} publication {} with (create_slot = false,"
            " slot_name = {}, copy_data = false, synchronous_commit = 'local')"
        ).format(
            sql.Identifier(name),
            sql.Literal(conninfo),
            sql.Identifier(publication),
            sql.Literal(name),
        )
    )
    return True


async def enable(conn: AsyncConnection[Any], name: str) -> None:
    """Takes `disable` back."""
    if name in await ls(conn, name):
        await conn.execute(sql.SQL("alter subscription {} enable").format(sql.Identifier(name)))


async def disable(conn: AsyncConnection[Any], name: str) -> None:
    """Disables the subscription if there is one, and waits until none of its workers is left: they
    are gone within milliseconds, but not at once.

    Raises:
        Temporary: they are not.
    """
    if name not in await ls(conn, name):
        return
    await conn.execute(sql.SQL("alter subscription {} disable").format(sql.Identifier(name)))
    for _ in range(_TRIES):
        cur = await conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_subscription"
            " where subname = %s and pid is not null",
            (name,),
        )
        if not await cur.fetchall():
            return
        await asyncio.sleep(0.02)
    raise Temporary(f"the subscription {name} does not end")


async def drop(conn: AsyncConnection[Any], name: str) -> bool:
    """Drops the subscription if there is one; its slot stays on the publisher."""
    if name not in await ls(conn, name):
        return False
    subscription = sql.Identifier(name)
    await conn.execute(sql.SQL("alter subscription {} disable").format(subscription))
    await conn.execute(sql.SQL("alter subscription {} set (slot_name = none)").format(subscription))
    await conn.execute(sql.SQL("drop subscription {}").format(subscription))
    return True
