"""Questions to one node, each answered in bounded time, for those who watch it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import psycopg

from shardman.errors import UserError
from shardman.lord.sessions import Sessions, hang_up
from shardman.steps.base import Connection

#: How long an answer may take.
ANSWER_S = 2.0

#: What `Asker.ask` raises when a node does not answer.
NO_ANSWER = (psycopg.Error, UserError, TimeoutError)


class Asker:
    """A session on a node that is opened when it is needed and dropped when it fails.

    Args:
        lord: a session on the lord's database of its own, to look the node's address up; it is closed
            with the asker.
    """

    def __init__(self, sessions: Sessions, node: int, lord: Connection) -> None:
        self._sessions = sessions
        self._node = node
        self.lord = lord
        self._conn: Connection | None = None
        self._asking = asyncio.Lock()

    async def ask(self, query: str, *params: Any) -> list[tuple[Any, ...]]:
        """The rows of a query.

        Raises:
            psycopg.Error, UserError, TimeoutError: the node does not answer.
            Refused: another shardlord acts.
        """
        async with self._asking:
            return await self._ask(query, params)

    async def _ask(self, query: str, params: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        work = asyncio.create_task(self._answer(query, params))
        try:
            await asyncio.wait({work}, timeout=ANSWER_S)
            if not work.done():
                raise TimeoutError
            return work.result()
        except NO_ANSWER:
            await self._end(work)
            await self._drop()
            raise
        except asyncio.CancelledError:
            await self._end(work)
            raise

    async def _answer(self, query: str, params: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        if self._conn is None:
            self._conn = await self._sessions.open(self._node, self.lord)
        cur = await self._conn.execute(query.encode(), params or None)
        return await cur.fetchall() if cur.description else []

    async def _end(self, work: asyncio.Task[Any]) -> None:
        """A query that is cancelled asks its server to end it, and waits: this one is not there."""
        if work.done():
            return
        if self._conn is None:
            work.cancel()
        else:
            hang_up(self._conn)
        await asyncio.wait({work}, timeout=ANSWER_S)
        if work.done() and not work.cancelled():
            work.exception()  # It is the hanging up that it tells of.

    async def _drop(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            with contextlib.suppress(psycopg.Error, TimeoutError):
                await asyncio.wait_for(conn.close(), ANSWER_S)

    async def close(self) -> None:
        """Ends both sessions."""
        await self._drop()
        await self.lord.close()
