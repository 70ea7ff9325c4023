"""Questions to one node, each answered in bounded time, for those who watch it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

import psycopg
import structlog
from psycopg.pq import ExecStatus

from shardman.errors import UserError
from shardman.lord.journal import LordLost
from shardman.lord.sessions import Address, Sessions
from shardman.pg.bounded import hang_up
from shardman.pg.connection import Connection

log = structlog.get_logger()

#: How long an answer may take.
ANSWER_S = 2.0

#: What `Asker.ask` raises when a node does not answer.
NO_ANSWER = (psycopg.Error, UserError, TimeoutError)

T = TypeVar("T")


async def interruptible(conn: Connection, work: Coroutine[Any, Any, T]) -> T:
    """What work in a session returns. Cancelled, it ends at once: a query that is cancelled asks its
    server to end it, and waits, and the server may hang."""
    task = asyncio.create_task(work, name=f"{_name()}: a question")
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        hang_up(conn)
        await _ended(task)
        raise
    return task.result()


async def ping(conn: Connection) -> None:
    """Sends an empty query and waits for the answer.

    Each node is asked four times a second for as long as the cluster lives: this costs a third of what
    `conn.execute` does. Given up halfway, it leaves a session that is good for nothing more.

    Raises:
        psycopg.OperationalError: the session has ended.
    """
    pgconn, loop = conn.pgconn, asyncio.get_running_loop()
    answered: asyncio.Future[None] = loop.create_future()
    # libpq closes it when the server has ended the session, and the next connection may get its number: it
    # is taken off the event loop in the same instant.
    socket = pgconn.socket

    def readable() -> None:
        if answered.done():
            return
        try:
            pgconn.consume_input()
            while not pgconn.is_busy():
                if (result := pgconn.get_result()) is None:
                    loop.remove_reader(socket)
                    answered.set_result(None)
                    return
                if result.status != ExecStatus.EMPTY_QUERY:
                    raise psycopg.OperationalError(result.get_error_message())
        except psycopg.Error as error:
            loop.remove_reader(socket)
            answered.set_exception(error)

    pgconn.send_query(b"")
    pgconn.flush()
    loop.add_reader(socket, readable)
    try:
        await answered
    finally:
        if answered.cancelled():
            loop.remove_reader(socket)


def _name() -> str:
    task = asyncio.current_task()
    return task.get_name() if task else ""


async def _ended(task: asyncio.Task[Any]) -> None:
    await asyncio.wait({task}, timeout=ANSWER_S)
    if task.done() and not task.cancelled():
        task.exception()  # It is the hanging up that it tells of.


class Asker:
    """A session on a node that is opened when it is needed and dropped when it fails."""

    def __init__(self, sessions: Sessions, node: int) -> None:
        self._sessions = sessions
        self._node = node
        self._conn: Connection | None = None
        self._address: Address | None = None
        self._asking = asyncio.Lock()
        #: What the node has refused to tell.
        self._refused: set[str] = set()

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

    async def ping(self) -> None:
        """As `ask`, for nothing but whether the node answers."""
        async with self._asking:
            if self._conn is None:
                self._address = await self._look_up()
                await self._ask("select", ())
                return
            try:
                async with asyncio.timeout(ANSWER_S):
                    await ping(self._conn)
            except (*NO_ANSWER, asyncio.CancelledError):
                hang_up(self._conn)
                await self._drop()
                raise

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
        work = asyncio.create_task(self._answer(query, params), name=f"{_name()}: a question")
        try:
            await asyncio.wait({work}, timeout=ANSWER_S)
            if not work.done():
                raise TimeoutError
            return work.result()
        except (*NO_ANSWER, asyncio.CancelledError):
            # The session may have half an answer in it.
            await self._end(work)
            await self._drop()
            raise

    async def _answer(self, query: str, params: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        if self._conn is None:
            assert self._address is not None
            self._conn = await self._sessions.connect(self._node, self._address)
        try:
            cur = await self._conn.execute(query.encode(), params or None)
        except psycopg.errors.InsufficientPrivilege as error:
            # Whoever asks takes it for silence, and goes on without what it would have seen.
            if (reason := str(error)) not in self._refused:
                self._refused.add(reason)
                log.warning("not allowed to ask", node=self._node, reason=reason)
            raise
        return await cur.fetchall() if cur.description else []

    async def _end(self, work: asyncio.Task[Any]) -> None:
        """A query that is cancelled asks its server to end it, and waits: this one is not there."""
        if work.done():
            return
        if self._conn is None:
            work.cancel()
        else:
            hang_up(self._conn)
        await _ended(work)

    async def _drop(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            with contextlib.suppress(psycopg.Error, TimeoutError):
                await asyncio.wait_for(conn.close(), ANSWER_S)

    async def close(self) -> None:
        """Ends the session."""
        await self._drop()


class Askers:
    """An asker for each node. Who asks a node while it has not answered another waits for that."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._askers: dict[int, Asker] = {}

    async def ask(self, node: int, query: str, *params: Any) -> list[tuple[Any, ...]]:
        """As `Asker.ask`."""
        return await self._asker(node).ask(query, *params)

    async def ping(self, node: int) -> None:
        """As `Asker.ping`."""
        await self._asker(node).ping()

    def _asker(self, node: int) -> Asker:
        if node not in self._askers:
            self._askers[node] = Asker(self._sessions, node)
        return self._askers[node]

    async def leave(self, node: int) -> None:
        """Ends the session on a node that nobody asks any more."""
        if node in self._askers:
            await self._askers.pop(node).close()

    async def close(self) -> None:
        """Ends all sessions."""
        for node in list(self._askers):
            await self.leave(node)
