"""Logical replication slots on one server."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
from psycopg import AsyncConnection

#: A walsender that was told to end is gone within milliseconds; this many looks of 20 ms each.
_TRIES = 250


async def ls(conn: AsyncConnection[Any], prefix: str) -> list[str]:
    """Names of the slots of this database that begin with prefix."""
    cur = await conn.execute(
        "select slot_name from pg_replication_slots"
        " where database = current_database() and starts_with(slot_name, %s) order by 1",
        (prefix,),
    )
    return [row[0] for row in await cur.fetchall()]


async def drop(conn: AsyncConnection[Any], name: str) -> bool:
    """Drops the slot if there is one, ending the walsender that still holds it.

    Raises:
        psycopg.errors.ObjectInUse: somebody takes it again and again.
    """
    dropped = False
    for _ in range(_TRIES):
        if name not in await ls(conn, name):
            return dropped
        try:
            await conn.execute("select pg_drop_replication_slot(%s)", (name,))
            dropped = True
        except psycopg.errors.ObjectInUse:
            await conn.execute(
                "select pg_terminate_backend(active_pid) from pg_replication_slots"
                " where slot_name = %s and active_pid is not null",
                (name,),
            )
            await asyncio.sleep(0.02)
    raise psycopg.errors.ObjectInUse(f"the replication slot {name} is used again and again")
