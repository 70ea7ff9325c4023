"""What a step gets to work with: `shardman.steps.base.Run`, for one attempt of one command."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus

from shardman.commands.base import Command, Facts
from shardman.errors import NodeGone
from shardman.lord.planner import gather_facts
from shardman.pg.reach import plain
from shardman.steps.base import Connection

if TYPE_CHECKING:
    from shardman.lord.runner import Runner
    from shardman.lord.sessions import Address

#: Progress is for people: more often than this is only load on the lord's database.
PROGRESS_INTERVAL_S = 0.25


class CommandRun:
    """The sessions and the voice of one attempt of a command.

    Args:
        cmd_id: the command.
        attempt: its number, from 1.
        runner: whose sessions and journal it uses.
        parent: the command that this one is a part of.
        gone: nodes that are not tried; one that cannot be reached joins them. None: each is tried
            each time.
    """

    def __init__(
        self,
        cmd_id: int,
        attempt: int,
        runner: Runner,
        parent: int | None,
        gone: set[int] | None = None,
    ) -> None:
        self.cmd_id = cmd_id
        self.attempt = attempt
        self.parent = parent
        self.cluster_id = runner.sessions.cluster_id
        self.epoch = runner.sessions.epoch
        self.memory: dict[str, Any] = {}
        self.sentences: list[str] = []
        self.fence = runner.fence
        self.gone: frozenset[int] = frozenset(gone or ())
        self._gone = gone
        self._runner = runner
        self._sessions = runner.sessions
        self._journal = runner.journal
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
        if self._gone and node_id in self._gone:
            if (await self._address(node_id)).removed:
                raise NodeGone(f"node {node_id} was removed and cannot be reached")
            raise psycopg.OperationalError(f"node {node_id} cannot be reached")
        try:
            return await self._sessions.open(node_id, await self.node(0), self.cmd_id)
        except psycopg.OperationalError as error:
            if self._gone is not None:
                self._gone.add(node_id)
            reason = f"node {node_id} cannot be reached: {plain(error)}"
            raise psycopg.OperationalError(reason) from error

    async def any_removed(self, nodes: Iterable[int]) -> bool:
        """Whether one of these nodes is no member any more."""
        return any([(await self._address(node)).removed for node in nodes])

    @asynccontextmanager
    async def borrow(self, node_id: int) -> AsyncIterator[Connection]:
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

    async def replication(self, node_id: int) -> AsyncConnection[Any]:
        async with self.borrow(node_id) as beside:
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
        await self._journal.progress(
            self.cmd_id, bytes_done=bytes_done, bytes_total=bytes_total, rows_done=rows_done
        )

    async def waits_for(self, whom: str | None) -> None:
        if whom != self._waits_for:
            self._waits_for = whom
            await self._journal.waits_for(self.cmd_id, whom)

    async def facts(self, command: Command) -> Facts:
        return await gather_facts(command, self)

    async def child(self, cmd_type: str, opts: list[str | None]) -> tuple[str, str | None]:
        outcome = await self._runner.child(self.cmd_id, cmd_type, opts)
        return outcome.status, outcome.error

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        async with self._runner.turns.take([name]):
            yield

    def say(self, sentence: str) -> None:
        if sentence not in self.sentences:
            self.sentences.append(sentence)

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
