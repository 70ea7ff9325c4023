"""`synchronous_standby_names` of one server: the channels for which its commits wait.

On the lord's server they also wait until a worker has the metadata. The list is the
whole server's. Names of other clusters of ours in it are kept; what somebody else has written there is
not touched, for both lists cannot be had in one.
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
_QUOTED = r'"?shardman_(?:meta_)?[a-z0-9]{6}(?:_\d+){1,2}"?'
_OURS = re.compile(rf"(?:(?:FIRST|ANY) \d+ )?\(?((?:{_QUOTED}(?:, ?)?)*)\)?\Z")
_CHANNEL = re.compile(r"shardman_([a-z0-9]{6})_\d+_\d+")
_COPY = re.compile(r"shardman_meta_([a-z0-9]{6})_\d+")

Connection = AsyncConnection[Any]

#: Reading the setting and writing it are two; this process is the only one that does.
_turn = asyncio.Lock()


def as_list(channels: list[str], copies: list[str]) -> str:
    """The setting that makes commits wait for all the channels, and for one of the copies of the lord's
    metadata; empty for none.

    PostgreSQL has one list with one method. With channels in it one copy is chosen, the first.

    >>> as_list(['a', 'b'], [])
    'FIRST 2 ("a", "b")'
    >>> as_list([], ['m1', 'm2'])
    'ANY 1 ("m1", "m2")'
    >>> as_list(['a'], ['m1', 'm2'])
    'FIRST 2 ("a", "m1")'
    """
    if copies and not channels:
        return f"ANY 1 ({_quoted(copies)})"
    all_of = [*channels, *copies[:1]]
    return f"FIRST {len(all_of)} ({_quoted(all_of)})" if all_of else ""


def _quoted(listed: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in listed)


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
    async with _turn:
        now = await _setting(conn)
        if _OURS.match(now) is None:
            if not channels:
                return
            raise UserError(
                f"synchronous_standby_names of the server is {now}",
                "Reset it, or let the table's replicas be asynchronous with set_sync",
            )
        others = await _with_slots(conn, {m[0] for m in _CHANNEL.finditer(now) if m[1] != cluster})
        # One that does not stream may be of a former lord.
        copies = await _with_slots(conn, {m[0] for m in _COPY.finditer(now)}, active=True)
        await _change(conn, now, as_list([*sorted(others), *channels], sorted(copies)))


async def set_copies(conn: Connection, copies: list[str]) -> bool:
    """Lets commits on the lord's server wait for one of these subscriptions to its metadata, and for the
    channels that they wait for already.

    Args:
        conn: an autocommit session with ``synchronous_commit = local``.
        copies: the one to be waited for where only one can be stands first.

    Returns:
        False when somebody else uses the setting, which is left alone.

    Raises:
        Temporary: the server does not take it over.
    """
    async with _turn:
        now = await _setting(conn)
        if _OURS.match(now) is None:
            return False
        channels = sorted({m[0] for m in _CHANNEL.finditer(now)})
        await _change(conn, now, as_list(channels, copies))
        return True


async def _with_slots(conn: Connection, channels: set[str], *, active: bool = False) -> set[str]:
    """Those of these channels that this server still has, or that stream."""
    cur = await conn.execute(
        "select slot_name from pg_replication_slots where slot_name = any (%s) and active >= %s",
        (list(channels), active),
    )
    return {row[0] for row in await cur.fetchall()}


async def _change(conn: Connection, now: str, wanted: str) -> None:
    if wanted != now:
        await _alter(conn, wanted)


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
