"""`synchronous_standby_names` of one server: the channels for which its commits wait.

On the lord's server they also wait until a worker has the metadata. The list is the whole server's, and
several nodes and clusters of ours may share one: each changes only its own names in it. What somebody
else has written there is not touched, for both lists cannot be had in one.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from psycopg import sql

from shardman.errors import Code, Temporary, UserError
from shardman.pg.connection import Connection

#: A reload reaches a process within milliseconds.
RELOAD_S = 5.0
#: A checkpointer that is behind with a checkpoint reads no settings before it has caught up.
CHECKPOINTER_S = 60.0
#: Within a checkpoint it sleeps for a tenth of a second at most, and a reload wakes it.
TWO_NAPS_S = 0.12
#: A list that somebody else changes at the same instant is changed again, so often.
TRIES = 5
_QUOTED = r'"?shardman_(?:meta_)?[a-z0-9]{6}(?:_\d+){1,2}"?'
_OURS = re.compile(rf"(?:(?:FIRST|ANY) \d+ )?\(?((?:{_QUOTED}(?:, ?)?)*)\)?\Z")
_CHANNEL = re.compile(r"shardman_[a-z0-9]{6}_\d+_\d+")
_COPY = re.compile(r"shardman_meta_([a-z0-9]{6})_\d+")


#: Held while the setting of a server, by its system identifier, is read and written: these are two statements.
_setting_locks: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
#: Servers, by their system identifiers, whose checkpointers know that there is a list.
_told: set[int] = set()


@dataclass(frozen=True)
class Listed:
    """What the setting says.

    Args:
        channels: commits wait for each of them.
        copies: subscriptions to the metadata of a lord on this server; commits wait for one of each
            cluster's.
    """

    channels: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The setting.

        PostgreSQL has one list with one method. With channels in it, or lords of several clusters on the
        server, one copy is chosen for each cluster, the first.

        >>> str(Listed(('a', 'b')))
        'FIRST 2 ("a", "b")'
        >>> str(Listed((), ('shardman_meta_aaaaaa_1', 'shardman_meta_aaaaaa_2')))
        'ANY 1 ("shardman_meta_aaaaaa_1", "shardman_meta_aaaaaa_2")'
        >>> str(Listed(('a',), ('shardman_meta_aaaaaa_1', 'shardman_meta_aaaaaa_2')))
        'FIRST 2 ("a", "shardman_meta_aaaaaa_1")'
        """
        if self._any:
            return f"ANY 1 ({_quoted(self.copies)})"
        return f"FIRST {len(self.names)} ({_quoted(self.names)})" if self.names else ""

    @property
    def _first_copies(self) -> tuple[str, ...]:
        first: dict[str, str] = {}
        for copy in self.copies:
            first.setdefault(_cluster(copy), copy)
        return tuple(first.values())

    @property
    def _any(self) -> bool:
        return bool(self.copies) and not self.channels and len(self._first_copies) == 1

    @property
    def names(self) -> tuple[str, ...]:
        """All that are listed, in order."""
        return self.copies if self._any else (*self.channels, *self._first_copies)

    def priorities(self) -> dict[str, int]:
        """sync_priority of each name once its walsender has read the setting."""
        return {name: 1 if self._any else n for n, name in enumerate(self.names, start=1)}


def _cluster(copy: str) -> str:
    match = _COPY.fullmatch(copy)
    return match[1] if match else ""


def _quoted(listed: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in listed)


def read(text: str) -> Listed | None:
    """The setting taken apart; None when it is somebody else's."""
    return _ours_in(text) if _OURS.match(text) else None


def _ours_in(text: str) -> Listed:
    """Our names in the setting, whatever else stands there."""
    return Listed(
        tuple(m[0] for m in _CHANNEL.finditer(text)),
        tuple(m[0] for m in _COPY.finditer(text)),
    )


async def set_replicas(
    conn: Connection,
    prefix: str,
    channels: Sequence[str],
    *,
    sure: bool = False,
    taken: bool = False,
) -> str | None:
    """Lets commits on this server wait for exactly these channels of a node, and for those of others.

    Args:
        conn: an autocommit session with ``synchronous_commit = local``.
        prefix: what the names of the node's channels begin with.
        sure: waits until all commits do, also where the setting was right already.
        taken: the setting was ours, so what somebody else has written there since is replaced.

    Returns:
        The setting as it was found right: what is read later somebody may have written meanwhile. None when
        somebody else uses it, and there is nothing that commits should wait for.

    Raises:
        UserError: somebody else uses the setting.
        Temporary: the server does not take it over.
    """

    def mine(name: str) -> bool:
        return bool(prefix) and name.startswith(prefix)

    async def wanted(now: Listed) -> Listed:
        stay = [c for c in now.channels if mine(c) and c in channels]
        # Those of others that have no slot any more nobody will ever confirm.
        others = await _with_slots(conn, [c for c in now.channels if not mine(c)])
        # Without a slot nobody could ever confirm.
        new = await _with_slots(conn, [c for c in channels if c not in now.channels])
        kept = {*stay, *others}
        return Listed(
            (*new, *(c for c in now.channels if c in kept)),
            # One that does not stream may be of a former lord.
            await _with_slots(conn, now.copies, active=True),
        )

    right = await _set(conn, wanted, sure=sure, taken=taken and bool(channels))
    if right is None and channels:
        raise UserError(
            f"synchronous_standby_names of the server is {await setting(conn)}",
            "Reset it, or let the table's replicas be asynchronous with set_sync",
            code=Code.SETTING_IN_USE,
        )
    return right


async def set_metadata_copies(conn: Connection, cluster: str, copies: Sequence[str]) -> bool:
    """Lets commits on the lord's server wait for one of these subscriptions to its metadata, and for
    whatever else they wait for already.

    Args:
        conn: an autocommit session with ``synchronous_commit = local``.
        cluster: the lord's.
        copies: the one to be waited for where only one can be stands first.

    Returns:
        False when somebody else uses the setting, which is left alone.

    Raises:
        Temporary: the server does not take it over.
    """

    async def wanted(now: Listed) -> Listed:
        others = [c for c in now.copies if _cluster(c) != cluster]
        return Listed(now.channels, (*copies, *await _with_slots(conn, others, active=True)))

    return await _set(conn, wanted) is not None


async def _set(
    conn: Connection, wanted: Callable[[Listed], Any], *, sure: bool = False, taken: bool = False
) -> str | None:
    """Changes the setting to what is wanted, given what it is; what it then says, None when it is not ours.

    New names come first, and alone: in front of all others they change everybody's priority, by which it
    is seen that every walsender has read the setting. One that has not lets commits go on by the old.

    Args:
        sure: waits until the setting is in force also where it was right already: whoever wrote it may have
            been interrupted.
    """
    server = await _server(conn)
    for _ in range(TRIES):
        async with _setting_locks[server]:
            text = await setting(conn)
            now = read(text) or (_ours_in(text) if taken else None)
            if now is None:
                return None
            if not now.names:
                _told.discard(server)
            to_be: Listed = await wanted(now)
            new = tuple(c for c in to_be.channels if c not in now.channels)
            step = replace(now, channels=(*new, *now.channels)) if new else to_be
            altered = str(step) != text
            if altered:
                await _alter(conn, step)
        # Without the lock: a server that is busy keeps nobody from the standby names of others.
        if new or (sure and not altered and step.channels):
            await _in_force(conn, server, now.names)
        if not altered:
            return text
        # Commits that waited for a name that was taken off are looked at again when a walsender speaks.
        await conn.execute("select pg_logical_emit_message(true, 'shardman', '')")
    raise Temporary(
        "synchronous_standby_names is changed by others at the same time", code=Code.BUSY
    )


async def _server(conn: Connection) -> int:
    row = await (await conn.execute("select system_identifier from pg_control_system()")).fetchone()
    return int(row[0]) if row else 0


async def _alter(conn: Connection, to_be: Listed) -> None:
    await conn.execute(
        sql.SQL("alter system set synchronous_standby_names = {}").format(sql.Literal(str(to_be)))
    )
    await conn.execute("select pg_reload_conf()")
    until = time.monotonic() + RELOAD_S
    while await setting(conn) != str(to_be):
        if time.monotonic() > until:
            raise Temporary(
                "the server does not take over synchronous_standby_names",
                code=Code.REPLICATION_STALLED,
            )
        await asyncio.sleep(0.005)


async def _in_force(conn: Connection, server: int, before: Sequence[str]) -> None:
    """Waits until no commit can be acknowledged by an older list.

    Every walsender releases commits by what it has read itself, and whether commits wait at all is told
    to everybody by the checkpointer (PostgreSQL: src/backend/replication/syncrep.c).

    Args:
        server: its system identifier.
        before: what was listed.

    Raises:
        Temporary: a process does not read the setting.
    """
    until = time.monotonic() + RELOAD_S
    while await _not_read(conn, before):
        if time.monotonic() > until:
            raise Temporary(
                "a walsender does not take over synchronous_standby_names",
                code=Code.REPLICATION_STALLED,
            )
        # It shows a priority once its subscriber has answered for the first time.
        await conn.execute("select pg_logical_emit_message(true, 'shardman', '')")
        await asyncio.sleep(0.005)
    if server not in _told:
        await _checkpointer_told(conn)
        _told.add(server)


async def _not_read(conn: Connection, before: Sequence[str]) -> bool:
    """Whether a walsender still goes by another list than the setting of now."""
    now = read(await setting(conn))
    priorities = dict.fromkeys(before, 0) | (now.priorities() if now else {})
    cur = await conn.execute(
        "select application_name, sync_priority from pg_stat_replication"
        " where application_name = any (%s)",
        (list(priorities),),
    )
    return any(priorities[name] != shown for name, shown in await cur.fetchall())


async def _checkpointer_told(conn: Connection) -> None:
    """Waits until the checkpointer has slept twice: it reads settings in between, except while it is
    behind with a checkpoint (PostgreSQL: src/backend/postmaster/checkpointer.c)."""
    until, asleep_since = time.monotonic() + CHECKPOINTER_S, None
    while asleep_since is None or time.monotonic() - asleep_since < TWO_NAPS_S:
        if time.monotonic() > until:
            raise Temporary(
                "the checkpointer does not take over synchronous_standby_names",
                code=Code.REPLICATION_STALLED,
            )
        await asyncio.sleep(0.02)
        if not await _checkpointer_sleeps(conn):
            asleep_since = None
        elif asleep_since is None:
            asleep_since = time.monotonic()
    # One that was stopped in its sleep looks the same.
    if await _checkpointer_stopped(conn):
        raise Temporary(
            "the checkpointer is stopped: let it go on (SIGCONT), or restart the server",
            code=Code.REPLICATION_STALLED,
        )


async def _checkpointer_sleeps(conn: Connection) -> bool:
    cur = await conn.execute(
        "select coalesce(bool_or(wait_event in ('CheckpointerMain', 'CheckpointWriteDelay')), false)"
        " from pg_stat_activity where backend_type = 'checkpointer'"
    )
    row = await cur.fetchone()
    return bool(row and row[0])


async def _checkpointer_stopped(conn: Connection) -> bool:
    cur = await conn.execute(
        "select coalesce(bool_or(t.stopped), false) from pg_stat_activity a"
        " cross join lateral shardman.process_times(a.pid) t where a.backend_type = 'checkpointer'"
    )
    row = await cur.fetchone()
    return bool(row and row[0])


async def setting(conn: Connection) -> str:
    """The setting as this session sees it."""
    row = await (await conn.execute("show synchronous_standby_names")).fetchone()
    return str(row[0]) if row else ""


async def _with_slots(
    conn: Connection, listed: Sequence[str], *, active: bool = False
) -> tuple[str, ...]:
    """Those of these names that this server still has slots of, or that stream; in the same order."""
    cur = await conn.execute(
        "select slot_name::text from pg_replication_slots where slot_name = any (%s) and active >= %s",
        (list(listed), active),
    )
    there = {row[0] for row in await cur.fetchall()}
    return tuple(name for name in listed if name in there)
