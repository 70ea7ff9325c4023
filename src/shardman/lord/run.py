"""What a step gets to work with: `shardman.steps.base.Run`, for one attempt of one command."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psycopg
from psycopg.pq import TransactionStatus

from shardman.commands.base import Command, Facts
from shardman.errors import RemovedNodeAway, UserError
from shardman.lord.entry import Entry
from shardman.lord.hurry import Hurry
from shardman.lord.in_doubt import Doubts
from shardman.lord.named_locks import NamedLocks
from shardman.lord.planner import gather_facts
from shardman.lord.sessions import Address, Sessions
from shardman.pg.connection import Connection
from shardman.pg.wording import plain
from shardman.steps.handed import Figures, Handed

#: Progress is for people: more often than this is only load on the lord's database.
PROGRESS_INTERVAL_S = 0.25


@dataclass(frozen=True)
class Shared:
    """What the runs of one leadership have in common.

    Args:
        named_locks: who works on a partition, or on the channel between two nodes.
        cut_over: held while a cut-over is up: one in the cluster at a time.
        child: runs a command as a part of another one, whose id it gets; its status and error.
        doubts: what was prepared and not ended.
    """

    named_locks: NamedLocks
    cut_over: asyncio.Lock
    child: Callable[[int, Command], Awaitable[tuple[str, str | None]]]
    doubts: Doubts


class CommandRun:
    """The sessions and the voice of one attempt of a command.

    Args:
        entry: the command's in the journal.
        sessions: of the leadership.
        shared: by all runs.
        parent: the command that this one is a part of.
        away: nodes that are not tried; one that cannot be reached joins them. None: each is tried
            each time.
        hurry: the command's.
    """

    def __init__(
        self,
        entry: Entry,
        sessions: Sessions,
        shared: Shared,
        parent: int | None,
        away: set[int] | None = None,
        hurry: Hurry | None = None,
    ) -> None:
        self.hurry = hurry or Hurry()
        self.entry = entry
        self.cmd_id = entry.cmd_id
        self.attempt = entry.attempt
        self.parent = parent
        self.cluster_id = sessions.cluster_id
        self.epoch = sessions.epoch
        self.figures = Figures()
        self.handed = Handed()
        self.again = False
        self.sentences: list[str] = []
        self.cut_over_lock = shared.cut_over
        self.away: frozenset[int] = frozenset(away or ())
        self._away = away
        self._sessions = sessions
        self._shared = shared
        self._main: dict[int, Connection] = {}
        self._more: list[Connection] = []
        self._spares: defaultdict[int, list[Connection]] = defaultdict(list)
        #: By node, so that one which is slow to answer keeps nobody from the others.
        self._opening: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._shown_at = 0.0
        self._waits_for: str | None = None

    async def node(self, node_id: int) -> Connection:
        async with self._opening[node_id]:
            conn = self._main.get(node_id)
            if conn is None or conn.closed or conn.broken:
                conn = await self._open(node_id)
                self._main[node_id] = conn
            return conn

    async def _open(self, node_id: int) -> Connection:
        if node_id == 0:
            return await self._sessions.lord()
        if self._away and node_id in self._away:
            if (await self._address(node_id)).removed:
                raise RemovedNodeAway(node_id)
            raise psycopg.OperationalError(f"node {node_id} cannot be reached")
        try:
            lord = await self.node(0)
            conn = await self._sessions.open(node_id, lord, self.cmd_id)
            try:
                await self._sessions.schemas.require(node_id, conn, lord)
            except BaseException as error:
                await conn.close()
                if self._away is not None and isinstance(error, UserError):
                    # Our functions there are others: it is as good as away.
                    raise psycopg.OperationalError(error.what) from error
                raise
            return conn
        except psycopg.OperationalError as error:
            if self._away is not None:
                self._away.add(node_id)
            if isinstance(error, psycopg.errors.TooManyConnections):
                raise
            reason = f"node {node_id} cannot be reached: {plain(error)}"
            raise psycopg.OperationalError(reason) from error

    async def any_removed(self, nodes: Iterable[int]) -> bool:
        """Whether one of these nodes is no member any more."""
        return any([(await self._address(node)).removed for node in nodes])

    @asynccontextmanager
    async def extra_session(self, node_id: int) -> AsyncIterator[Connection]:
        conn = await self._spare(node_id)
        try:
            yield conn
        finally:
            if conn.info.transaction_status == TransactionStatus.IDLE:
                self._spares[node_id].append(conn)
            else:
                await conn.close()

    async def _spare(self, node_id: int) -> Connection:
        while self._spares[node_id]:
            conn = self._spares[node_id].pop()
            if not conn.closed:
                return conn
        conn = await self._open(node_id)
        self._more.append(conn)
        return conn

    async def replication(self, node_id: int) -> Connection:
        async with self.extra_session(node_id) as beside:
            conn = await self._sessions.replication(await self.conninfo(node_id), beside)
        self._sessions.adopt(node_id, conn)
        return conn

    async def conninfo(self, node_id: int) -> str:
        return (await self._address(node_id)).conninfo

    async def peer(self, node_id: int) -> str:
        return (await self._address(node_id)).peer

    async def _address(self, node_id: int) -> Address:
        return await self._sessions.address(node_id, await self.node(0), self.cmd_id)

    async def progress(
        self,
        *,
        bytes_done: int | None = None,
        bytes_total: int | None = None,
        rows_done: int | None = None,
    ) -> None:
        now = time.monotonic()
        if now - self._shown_at < PROGRESS_INTERVAL_S and bytes_total is None:
            return
        self._shown_at = now
        await self.entry.progress(
            bytes_done=bytes_done, bytes_total=bytes_total, rows_done=rows_done
        )

    async def waits_for(self, whom: str | None) -> None:
        if whom != self._waits_for:
            self._waits_for = whom
            await self.entry.waits_for(whom)

    async def facts(self, command: Command) -> Facts:
        return await gather_facts(command, self)

    async def child(self, command: Command) -> tuple[str, str | None]:
        return await self._shared.child(self.cmd_id, command)

    @asynccontextmanager
    async def named_lock(self, name: str) -> AsyncIterator[None]:
        async with self._shared.named_locks.take([name]):
            yield

    def prepares(self, what: str, nodes: Mapping[int, int]) -> None:
        self._shared.doubts.prepare(self.cmd_id, self.attempt, what, nodes)

    def prepared_ended(self, node_id: int) -> None:
        self._shared.doubts.ended(self.cmd_id, node_id)

    def say(self, sentence: str) -> None:
        if sentence not in self.sentences:
            self.sentences.append(sentence)

    def tell_left(self, left: Sequence[str]) -> None:
        """Tells what was left for the janitor."""
        self.figures.left = len(left) or None
        for sentence in left:
            self.say(sentence)

    async def close(self, *, keep: bool = False) -> None:
        """Closes every session; what ran in one is rolled back by its server.

        Args:
            keep: they may serve the next command. Not after a failure: a part that could not be ended
                may still have one in its hands.
        """
        for conn in (*self._main.values(), *self._more):
            await (self._sessions.give_back(conn) if keep else conn.close())
        self._main.clear()
        self._more.clear()
        self._spares.clear()
