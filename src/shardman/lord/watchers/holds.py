"""Holds commits over several nodes for sessions that ask for it (sql/routines/99_holding.sql), until they say
otherwise, or are gone, or it has lasted for too long."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import psycopg
import structlog

from shardman.errors import Code, UserError
from shardman.lord.ask import NO_ANSWER
from shardman.lord.journal import LordLost
from shardman.lord.watchers.reach import Reach
from shardman.pg.connection import Connection
from shardman.pg.wording import plain
from shardman.sql.loader import queries
from shardman.steps import gates
from shardman.tasks import all_of, cancel_once

log = structlog.get_logger()

LOOK_EVERY_S = 1.0


@dataclass
class Hold:
    """Of a session.

    Args:
        node: where the session is.
        pid: its process.
        session: its name.
        release: the session wants it ended.
    """

    node: int
    pid: int
    session: str
    release: asyncio.Event = field(default_factory=asyncio.Event)
    gone: bool = False
    row: int | None = None


class Holds:
    """Those of one leadership."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._holds: dict[tuple[int, str], Hold] = {}
        self._tasks: dict[tuple[int, str], asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Looks until cancelled; then all commits go on."""
        try:
            while True:
                await all_of(*(self._look(n) for n in self._reach.nodes()))
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            for task in self._tasks.values():
                cancel_once(task)

    async def _look(self, node: int) -> None:
        try:
            rows = await self._reach.askers.ask(node, queries("snapshots")["look_for_holds"])
        except (*NO_ANSWER, LordLost):
            return
        for row, pid, session, wish in rows:
            key = (node, session)
            hold = self._holds.get(key)
            if hold is not None:
                hold.gone = wish == "gone"
                if wish in ("release", "gone"):
                    hold.release.set()
            elif row is not None:
                await self._end(node, row, "another shardlord acts by now")
            elif wish == "hold":
                self._begin(key, Hold(node, pid, session))

    def _begin(self, key: tuple[int, str], hold: Hold) -> None:
        self._holds[key] = hold
        task = asyncio.create_task(self._hold(hold), name=f"commits held for {hold.session}")
        self._tasks[key] = task

        def ended(_task: asyncio.Task[None]) -> None:
            self._holds.pop(key, None)
            self._tasks.pop(key, None)

        task.add_done_callback(ended)

    async def _hold(self, hold: Hold) -> None:
        """From the wish to the end of it; what goes wrong is what the session is told."""
        why: str | None = None
        try:
            async with AsyncExitStack() as stack:
                sessions = await self._open_all(stack)
                async with gates.closed(sessions):
                    await self._tell(hold, None)
                    log.info("commits are held", node=hold.node, session=hold.session)
                    await self._stay(hold, sessions)
        except UserError as error:
            why = error.what
        except (psycopg.Error, TimeoutError, LordLost) as error:
            why = plain(error)
        if hold.gone and why is None:
            why = "the session is gone"
        log.info("commits go on", node=hold.node, session=hold.session, why=why or "released")
        try:
            if hold.row is None:
                await self._tell(hold, why)
            else:
                await self._end(hold.node, hold.row, why)
        except (*NO_ANSWER, LordLost) as error:
            log.warning("a session was not told", node=hold.node, reason=plain(error))

    async def _stay(self, hold: Hold, sessions: dict[int, Connection]) -> None:
        """Until the session wants no more.

        Raises:
            UserError: it has lasted for too long, or a gate is open.
        """
        longest = self._reach.metadata.known.settings.hold_commits_for
        until = time.monotonic() + longest
        while not hold.release.is_set():
            if time.monotonic() > until:
                raise UserError(
                    f"they were held for {longest:g} seconds",
                    "Copy faster, or set hold_commits_for",
                    code=Code.LOCK_TIMEOUT,
                )
            await gates.stay(sessions)
            try:
                async with asyncio.timeout(gates.ALIVE_EVERY_S):
                    await hold.release.wait()
            except TimeoutError:
                continue

    async def _open_all(self, stack: AsyncExitStack) -> dict[int, Connection]:
        """A session on each node."""
        found: dict[int, Connection] = {}
        lord = await self._reach.sessions.lord()
        stack.push_async_callback(self._reach.sessions.give_back, lord)
        for node in sorted(self._reach.metadata.known.cluster.members):
            try:
                session = await self._reach.sessions.open(node, lord)
            except (psycopg.Error, UserError) as error:
                raise UserError(
                    f"node {node} cannot be reached: {plain(error)}",
                    "Try again when it is there",
                    code=Code.NODE_UNREACHABLE,
                ) from error
            stack.push_async_callback(self._reach.sessions.give_back, session)
            found[node] = session
        return found

    async def _tell(self, hold: Hold, failed: str | None) -> None:
        """Answers the session.

        Raises:
            psycopg.Error, UserError, TimeoutError, LordLost: its node does not answer.
        """
        ((hold.row,),) = await self._reach.askers.ask(
            hold.node, queries("snapshots")["tell_hold"], hold.pid, hold.session, failed
        )

    async def _end(self, node: int, row: int, why: str | None) -> None:
        try:
            await self._reach.askers.ask(node, queries("snapshots")["end_hold"], why, why, row)
        except (*NO_ANSWER, LordLost) as error:
            log.warning("a session was not told", node=node, reason=plain(error))
