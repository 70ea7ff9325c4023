"""Questions to one node, each answered in bounded time, for those who watch it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import psycopg

from shardman.errors import UserError
from shardman.lord.sessions import Sessions
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

    async def ask(self, query: str, *params: Any) -> list[tuple[Any, ...]]:
        """The rows of a query.

        Raises:
            psycopg.Error, UserError, TimeoutError: the node does not answer.
            Refused: another shardlord acts.
        """
        try:
            async with asyncio.timeout(ANSWER_S):
                if self._conn is None:
                    self._conn = await self._sessions.open(self._node, self.lord)
                cur = await self._conn.execute(query.encode(), params or None)
                return await cur.fetchall() if cur.description else []
        except NO_ANSWER:
            await self._drop()
            raise

    async def _drop(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            with contextlib.suppress(psycopg.Error, TimeoutError):
                await asyncio.wait_for(conn.close(), ANSWER_S)

    async def close(self) -> None:
        """Ends both sessions."""
        await self._drop()
        await self.lord.close()
