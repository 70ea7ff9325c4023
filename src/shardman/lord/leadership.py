"""The loop of leaderships: waits for the lease, acts until it is told to stop, loses the lease, or loses the
lord's database, and begins again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Protocol

import psycopg
import structlog

from shardman.errors import Deposed, Refused, UserError
from shardman.lord.failures import sentence
from shardman.lord.identity import NotLord, check, cluster_of, is_decided, step_down
from shardman.lord.in_doubt import Doubts
from shardman.lord.journal import Journal, LordLost
from shardman.lord.lease import LEASE_S, Lease, acquire
from shardman.lord.metadata import Metadata
from shardman.lord.sessions import Sessions
from shardman.lord.settlement import Settlement
from shardman.lord.task_group import run_together
from shardman.pg.connection import Connection
from shardman.tasks import pause

log = structlog.get_logger()

RETRY_S = 0.5
#: As `RETRY_S`, after a fault of the program's own: what runs gets time before it may come again.
FAULT_S = 5.0
#: How long what runs may take to end when the shardlord is told to stop.
STOP_S = 20.0
#: How long the next leadership waits for what the last has left in doubt: a node may hang as well.
SETTLE_S = 5.0


class Leadership(Protocol):
    """One shardlord's time in office."""

    async def serve(self) -> None:
        """Recovers what a predecessor left, then acts until cancelled or until the leadership is over."""
        ...

    def cancel_running(self) -> None:
        """Takes back the commands that run."""
        ...

    async def stop(self) -> None:
        """Ends what runs, or leaves it waiting for the next."""
        ...

    def abandon(self) -> None:
        """Drops everything on the spot: the next one recovers it."""
        ...


class Leaderships:
    """One shardlord's leaderships, one after the other.

    Args:
        dsn: of the lord's database.
        make: what acts in one of them.
    """

    def __init__(
        self, dsn: str, make: Callable[[Sessions, Journal, Metadata, Doubts], Leadership]
    ) -> None:
        self._dsn = dsn
        self._doubts = Doubts()
        #: Of the last leadership.
        self._sessions: Sessions | None = None
        self._make = make
        self._stopping = asyncio.Event()
        self._leadership: Leadership | None = None

    def stop(self) -> None:
        """Ends `run`."""
        self._stopping.set()

    def cancel_running(self) -> None:
        """Takes back the commands that run."""
        if self._leadership is not None:
            self._leadership.cancel_running()

    async def run(self) -> None:
        """Runs until it is told to stop. A fault of the program's own, which the log has whole, ends a
        leadership as a lost session does: nobody else would fail over meanwhile.

        Raises:
            UserError: the database is not a lord's.
        """
        while not self._stopping.is_set():
            try:
                await self._until_stopped(self._while_lord())
            except UserError:
                raise
            except Exception as error:  # noqa: BLE001  (whatever it is)
                await self._until_stopped(self._between(error))

    async def _between(self, error: Exception) -> None:
        seconds = await self._end(error)
        if self._doubts.all():
            await self._settle()
        await asyncio.sleep(seconds)

    async def _settle(self) -> None:
        """One look at what is in doubt. As long as there is no lord's database, this comes again and again."""
        assert self._sessions is not None
        sessions = self._sessions.again()
        try:
            async with asyncio.timeout(SETTLE_S):
                await Settlement(self._doubts, sessions).run()
        except TimeoutError:
            log.warning("cut-overs in doubt", error="the nodes did not answer in time")
        finally:
            sessions.end()

    async def _end(self, error: Exception) -> float:
        """Says why a leadership is over; how long to pause before the next, in seconds."""
        causes = [*_causes(error)]
        if any(isinstance(c, Deposed) for c in causes):
            await step_down(self._dsn)
        if all(isinstance(c, (psycopg.Error, LordLost, Refused)) for c in causes):
            log.warning("leadership over", reason=_reason(causes[0]))
            return RETRY_S
        log.error("leadership over: a fault of the program", exc_info=error)
        return FAULT_S

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="leadership")
        stop = asyncio.create_task(self._stopping.wait(), name="stop")
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and self._leadership is not None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._leadership.stop(), STOP_S)
        finally:
            stop.cancel()
            task.cancel()
            await asyncio.wait({task})
        if not task.cancelled():
            task.result()

    async def _while_lord(self) -> None:
        try:
            await self._one()
        except NotLord as reason:
            if await is_decided(self._dsn):
                raise
            log.warning("a promotion is under way", reason=str(reason))
            await asyncio.sleep(RETRY_S)

    async def _one(self) -> None:
        await check(self._dsn)
        lease = await acquire(self._dsn)
        conns: list[Connection] = [lease.conn]
        sessions = None
        try:
            # It may have stood by for days.
            await check(self._dsn)
            sessions = Sessions(self._dsn, await cluster_of(lease.conn), lease.epoch)
            self._sessions = sessions
            conns.append(await sessions.lord())
            conns.append(await sessions.lord())
            journal, metadata = Journal(conns[1], lease.epoch), Metadata(conns[2])
            await metadata.read()
            self._leadership = self._make(sessions, journal, metadata, self._doubts)
            await run_together(
                lease=lease.keep(),
                leadership=self._leadership.serve(),
                decisions=_decided_in_time(lease, self._doubts),
            )
        finally:
            if self._leadership is not None:
                self._leadership.abandon()
                self._leadership = None
            if sessions is not None:
                sessions.end()
            for conn in conns:
                await conn.close()


async def _decided_in_time(lease: Lease, doubts: Doubts) -> None:
    """Looks after cut-overs whose decision does not come. A lord's database that hangs says nothing, and keeps
    its connections: other work waits for it patiently, clients of a partition must not.

    Raises:
        LordLost: it has not answered for so long.
    """
    while True:
        await pause(RETRY_S)
        silent = lease.silent()
        if silent > LEASE_S and doubts.longest() > LEASE_S:
            raise LordLost(f"it has not answered for {silent:.0f} s, and a cut-over waits for it")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The errors of which a group consists, or the one."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _causes(part)
    else:
        yield error


def _reason(error: BaseException) -> str:
    return " ".join(sentence(error).split()) if isinstance(error, psycopg.Error) else str(error)
