"""Hears what happens in the lord's database: commands that were submitted, metadata that has changed.

A notification is a hint. What it told of is in the tables, and is found by a glance at them every other
second when the notification was lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from shardman.lord.metadata import Metadata
from shardman.lord.sessions import Sessions
from shardman.pg.connection import Connection
from shardman.sql.loader import queries

#: How late something is noticed when its notification is lost.
GLANCE_S = 2.0
#: What triggers on the metadata say (`sql/routines/61_triggers.sql`).
METADATA = "metadata"


class Listener:
    """The ears of one leadership.

    Args:
        command: called when there may be a command to begin or to cancel.
    """

    def __init__(self, sessions: Sessions, metadata: Metadata, command: Callable[[], None]) -> None:
        self._sessions = sessions
        self._metadata = metadata
        self._command = command

    async def run(self) -> None:
        """Listens until cancelled.

        Raises:
            psycopg.OperationalError: the lord's database went away.
        """
        conn = await self._sessions.lord()
        glance_at = 0.0
        try:
            await conn.execute("listen shardman")
            while True:
                if (now := time.monotonic()) >= glance_at:
                    await self._glance(conn)
                    glance_at = now + GLANCE_S
                # Also what came while a query ran: psycopg has kept it.
                await self._hear(conn)
                await _readable(conn, glance_at - now)
        finally:
            await conn.close()

    async def _hear(self, conn: Connection) -> None:
        async for notification in conn.notifies(timeout=0):
            if notification.payload == METADATA:
                self._metadata.outdated()
            else:
                self._command()

    async def _glance(self, conn: Connection) -> None:
        row = await (await conn.execute(queries("watch")["glance"])).fetchone()
        assert row is not None
        self._metadata.compare(row[0])
        if row[1]:
            self._command()


async def _readable(conn: Connection, seconds: float) -> None:
    """Waits until a server says something, or for some seconds. The same in psycopg wakes up ten times a
    second."""
    said = asyncio.Event()
    loop, socket = asyncio.get_running_loop(), conn.pgconn.socket
    loop.add_reader(socket, said.set)
    try:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(said.wait(), seconds)
    finally:
        loop.remove_reader(socket)
