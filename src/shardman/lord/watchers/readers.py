"""Sessions of those who compare copies in the background: they read much, and give way to everybody."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from shardman import names
from shardman.lord.ask import Askers
from shardman.lord.metadata import Known
from shardman.lord.sessions import Sessions
from shardman.pg.comparison import Unsettled
from shardman.pg.connection import Connection
from shardman.sql.loader import queries
from shardman.steps.catalog import value

#: How often it is looked whether anybody waits for a reader, in seconds.
GIVE_WAY_S = 0.2
#: Seen in pg_stat_activity; a failover ends such a session as any client's.
NAME = "shardman scrub"

T = TypeVar("T")


class Readers:
    """Opens sessions for one who compares."""

    def __init__(self, sessions: Sessions, askers: Askers) -> None:
        self._sessions = sessions
        self._askers = askers
        #: `scrub_rate`, and the settings of which it was read.
        self._rate: tuple[Known | None, int] = (None, 0)

    async def rate(self, known: Known) -> int:
        """How many bytes may be read in a second; 0: nothing is to be compared."""
        if self._rate[0] is not known:
            lord = await self._sessions.lord()
            try:
                self._rate = known, int(await value(lord, queries("watch")["scrub_settings"]))
            finally:
                await self._sessions.give_back(lord)
        return self._rate[1]

    async def session(self, stack: AsyncExitStack, node: int) -> Connection:
        """A session on a node, until the stack is left."""
        lord = await self._sessions.lord()
        try:
            conn = await self._sessions.open(node, lord)
        finally:
            await self._sessions.give_back(lord)
        stack.push_async_callback(self._give_back, conn)
        await conn.execute(f"set application_name = '{NAME}'".encode())
        return conn

    async def _give_back(self, conn: Connection) -> None:
        """For the next comparison. One with a transaction left in it is closed, which ends that."""
        with contextlib.suppress(psycopg.Error):
            if conn.info.transaction_status == TransactionStatus.IDLE:
                name = names.application(self._sessions.epoch)
                await conn.execute("select set_config('application_name', %s, false)", (name,))
        await self._sessions.give_back(conn)

    async def giving_way(
        self, readers: Mapping[int, Connection], work: Coroutine[Any, Any, T]
    ) -> T:
        """What is read, unless somebody waits for the readers' locks meanwhile.

        Raises:
            Unsettled: somebody does.
        """
        reading = asyncio.create_task(work, name="scrub: reading")
        try:
            while not (await asyncio.wait({reading}, timeout=GIVE_WAY_S))[0]:
                for node, conn in readers.items():
                    rows = await self._askers.ask(
                        node, queries("watch")["is_waited_for"], conn.info.backend_pid
                    )
                    if rows[0][0]:
                        raise Unsettled("who waits for its locks")
            return reading.result()
        finally:
            reading.cancel()
            await asyncio.wait({reading})

    async def note(self, query: str, *params: object) -> None:
        """Writes down in the lord's database what was found."""
        lord = await self._sessions.lord()
        try:
            await lord.execute(queries("watch")[query], params)
        finally:
            await self._sessions.give_back(lord)
