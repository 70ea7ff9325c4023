"""`synchronous_standby_names` of one server: the channels for which its commits wait.

The list is the whole server's. Names of other clusters of ours in it are kept; what somebody else has
written there is not touched, for both lists cannot be had in one.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

from psycopg import AsyncConnection, sql

from shardman.errors import Temporary, UserError

#: A reload reaches a session within milliseconds.
RELOAD_S = 5.0
_OURS = re.compile(r'(?:FIRST \d+ )?\(?((?:"?shardman_[a-z0-9]{6}_\d+_\d+"?(?:, ?)?)*)\)?\Z')
_NAME = re.compile(r"shardman_([a-z0-9]{6})_\d+_\d+")

Connection = AsyncConnection[Any]


def as_list(channels: list[str]) -> str:
    """The setting that makes commits wait for all of them; empty for none.

    >>> as_list(['a', 'b'])
    'FIRST 2 ("a", "b")'
    """
    quoted = ", ".join(f'"{name}"' for name in channels)
    return f"FIRST {len(channels)} ({quoted})" if channels else ""


async def _setting(conn: Connection) -> str:
    row = await (await conn.execute("show synchronous_standby_names")).fetchone()
    return str(row[0]) if row else ""


async def set_list(conn: Connection, cluster: str, channels: list[str]) -> None:
    """Lets commits on this server wait for exactly these channels of the cluster.

    Args:
        conn: an autocommit session with ``synchronous_commit = local``.

    Raises:
        UserError: somebody else uses the setting.
        Temporary: the server does not take it over.
    """
    now = await _setting(conn)
    if _OURS.match(now) is None:
        if not channels:
            return
        raise UserError(
            f"synchronous_standby_names of the server is {now}",
            "Reset it, or let the table's replicas be asynchronous with set_sync",
        )
    others = {m[0] for m in _NAME.finditer(now) if m[1] != cluster}
    wanted = as_list([*sorted(await _with_slots(conn, others)), *channels])
    if wanted != now:
        await _alter(conn, wanted)


async def _with_slots(conn: Connection, channels: set[str]) -> set[str]:
    """Those of other clusters' channels that this server still has."""
    cur = await conn.execute(
        "select slot_name from pg_replication_slots where slot_name = any (%s)", (list(channels),)
    )
    return {row[0] for row in await cur.fetchall()}


async def _alter(conn: Connection, wanted: str) -> None:
    await conn.execute(
        sql.SQL("alter system set synchronous_standby_names = {}").format(sql.Literal(wanted))
    )
    await conn.execute("select pg_reload_conf()")
    until = time.monotonic() + RELOAD_S
    while await _setting(conn) != wanted:
        if time.monotonic() > until:
            raise Temporary("the server does not take over synchronous_standby_names")
        await asyncio.sleep(0.005)
    # Commits that waited for a name that is off the list are looked at again when a walsender speaks.
    await conn.execute("select pg_logical_emit_message(true, 'shardman', '')")
