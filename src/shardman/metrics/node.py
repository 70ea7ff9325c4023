"""One node's values: asked in bounded time, the last known ones kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg
import structlog

from shardman.errors import UserError
from shardman.pg.bounded import BoundedConnection, hang_up
from shardman.pg.connect import PINNED, undisturbed
from shardman.pg.wording import plain, scrub
from shardman.sql.loader import queries

log = structlog.get_logger()

#: How long one question may take, in seconds, and one that looks at every partition.
QUICK_S, SLOW_S = 2.0, 15.0
#: How often the latter is asked.
SLOW_EVERY_S = 30.0
#: To connect, to set the session up and to ask take no longer, in seconds, whatever the node does.
OVERDUE_S = 5 * QUICK_S

NO_ANSWER = (psycopg.Error, UserError, TimeoutError, OSError)


@dataclass(frozen=True)
class Value:
    """One value of one metric."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass
class Answers:
    """What is known of a node.

    Args:
        parts: the values of each query, as last answered.
        at: when that was, on the monotonic clock.
        up: whether the last quick question was answered.
    """

    parts: dict[str, list[Value]] = field(default_factory=dict)
    at: dict[str, float] = field(default_factory=dict)
    up: bool = False


class _Session:
    """One session on a node, opened when something is asked."""

    def __init__(self) -> None:
        self._conn: BoundedConnection | None = None

    async def ask(
        self,
        params: Mapping[str, Any],
        query: LiteralString,
        values: Mapping[str, Any],
        limit_s: float,
    ) -> list[Any]:
        """The rows.

        Args:
            params: how to reach the node.
            limit_s: how long the question may take, in seconds.

        Raises:
            psycopg.Error: it was not answered.
        """
        conn = await self._opened(params)
        conn.limit_s = limit_s
        cur = await conn.execute(query, values)
        return await cur.fetchall()

    async def _opened(self, params: Mapping[str, Any]) -> BoundedConnection:
        if self._conn is None or self._conn.closed:
            params = {**params, "application_name": "shardman metrics", "connect_timeout": 2}
            self._conn = await BoundedConnection.connect(
                "", autocommit=True, **{**params, **undisturbed(params)}
            )
            self._conn.limit_s = QUICK_S
            await self._conn.execute(PINNED)
            # Of a question that was given up none goes on.
            await self._conn.execute("set client_connection_check_interval = '1s'")
        return self._conn

    async def close(self) -> None:
        """Ends it, whatever its server does."""
        conn, self._conn = self._conn, None
        if conn is not None:
            hang_up(conn)
            await conn.close()


class NodeAsker:
    """Asks one node. One question of each kind at a time is under way: whoever comes meanwhile waits for that.

    What looks at every partition is asked in a session of its own: a node that hangs just then is to be seen
    as soon as any other.
    """

    def __init__(self, node: int, limits: Mapping[str, Any], slow_every_s: float) -> None:
        self.node = node
        #: How to reach it; may hold a password.
        self.params: Mapping[str, Any] = {}
        self.lord = False
        self.answers = Answers()
        self._limits, self._slow_every_s = limits, slow_every_s
        self._session = _Session()
        self._asking: asyncio.Task[None] | None = None
        self._asked_at = 0.0
        self._asking_slowly: asyncio.Task[None] | None = None
        self._slow_at: float | None = None
        self._told = ""

    def lead(self, lord: bool) -> None:
        """Whether it is the lord now: what a former one has said is not to be shown any more."""
        self.lord = lord
        for part in ("lord", "lord_slow") if not lord else ():
            self.answers.parts.pop(part, None)

    async def ask(self, patience_s: float, *, slowly: bool) -> None:
        """Brings the answers up to date.

        Args:
            patience_s: how long to wait for it, in seconds; what is not there by then is for the next one.
            slowly: wait for what is asked now and then, too.
        """
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._look(), name=f"metrics of node {self.node}")
            self._asked_at = time.monotonic()
        begun = time.monotonic()
        await asyncio.wait({self._asking}, timeout=patience_s)
        self._judge(self._asking)
        if slowly and self._asking_slowly is not None:
            left = max(0.0, begun + patience_s - time.monotonic())
            await asyncio.wait({self._asking_slowly}, timeout=left)

    def _judge(self, asking: asyncio.Task[None]) -> None:
        """Of whom nothing is heard must not be said that it is up, whatever the reason is."""
        if not asking.done():
            if time.monotonic() - self._asked_at < OVERDUE_S:
                return
            # Its session goes with it: the next question has one of its own.
            asking.cancel()
            self._asking, self._session = None, _Session()
            error: BaseException | None = TimeoutError(f"no answer in {OVERDUE_S:.0f} s")
        else:
            error = asyncio.CancelledError() if asking.cancelled() else asking.exception()
        if error is not None:
            self._tell(f"{type(error).__name__}: {error}")
            self.answers.up = False

    async def _look(self) -> None:
        session = self._session
        try:
            await self._ask(session, "node", QUICK_S)
            if self.lord:
                await self._ask(session, "lord", QUICK_S)
        except NO_ANSWER as error:
            self._tell(_words(error))
            self.answers.up = False
            await session.close()
            return
        except asyncio.CancelledError:
            await session.close()
            raise
        self.answers.up = True
        now = time.monotonic()
        if self._slow_at is None or now - self._slow_at >= self._slow_every_s:
            self._slow_at = now
            if self._asking_slowly is None or self._asking_slowly.done():
                self._asking_slowly = asyncio.create_task(
                    self._look_slowly(), name=f"details of node {self.node}"
                )

    async def _look_slowly(self) -> None:
        session = _Session()
        try:
            await self._ask(session, "node_slow", SLOW_S)
            if self.lord:
                await self._ask(session, "lord_slow", SLOW_S)
        except NO_ANSWER as error:
            # Whether it is up the next quick question says: to be slow is not to be away.
            self._tell(_words(error))
        finally:
            await session.close()

    def _tell(self, error: str) -> None:
        """What is in the way, once."""
        if error != self._told:
            log.warning("does not answer", node=self.node, error=error)
            self._told = error

    async def _ask(self, session: _Session, name: str, limit_s: float) -> None:
        values = {**self._limits, "now": time.time()}
        rows = await session.ask(self.params, queries("metrics")[name], values, limit_s)
        self.answers.at[name] = time.monotonic()
        self.answers.parts[name] = [
            Value(metric, {"node": str(self.node), **labels}, float(value))
            for metric, labels, value in rows
            if value is not None
        ]

    async def leave(self) -> None:
        """Ends all of it: the node is no member any more."""
        for task in (self._asking, self._asking_slowly):
            if task is not None:
                task.cancel()
        await self._session.close()


def _words(error: Exception) -> str:
    return scrub(plain(error) if isinstance(error, psycopg.Error) else str(error))
