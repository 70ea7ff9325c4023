"""Questions to one node, each answered in bounded time, for those who watch it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import psycopg

from shardman.errors import UserError
from shardman.lord.journal import LordLost
from shardman.lord.sessions import Address, Sessions, hang_up
from shardman.steps.base import Connection

#: How long an answer may take.
ANSWER_S = 2.0

#: What `Asker.ask` raises when a node does not answer.
NO_ANSWER = (psycopg.Error, UserError, TimeoutError)


class Asker:
    """A session on a node that is opened when it is needed and dropped when it fails."""

    def __init__(self, sessions: Sessions, node: int) -> None:
        self._sessions = sessions
        self._node = node
        self._conn: Connection | None = None
        self._address: Address | None = None
        self._asking = asyncio.Lock()

    async def ask(self, query: str, *params: Any) -> list[tuple[Any, ...]]:
        """The rows of a query.

        Raises:
            psycopg.Error, UserError, TimeoutError: the node does not answer.
            LordLost: its address cannot be looked up, which says nothing about the node.
            Refused: another shardlord acts.
        """
        async with self._asking:
            if self._conn is None:
                self._address = await self._look_up()
            return await self._ask(query, params)

    async def _look_up(self) -> Address:
        try:
            lord = await self._sessions.lord()
            try:
                return await self._sessions.address(self._node, lord)
            finally:
                await lord.close()
        except psycopg.Error as error:
            raise LordLost(str(error)) from error

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
            assert self._address is not None
            self._conn = await self._sessions.connect(self._node, self._address)
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
        """Ends the session."""
        await self._drop()
