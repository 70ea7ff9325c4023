"""What both scrubs have alike: copies are compared one after the other, with a pause after each."""

from __future__ import annotations

import abc
import asyncio
import time
from collections.abc import Iterable

import structlog

from shardman.lord.ask import NO_ANSWER, Askers
from shardman.lord.journal import LordLost
from shardman.lord.metadata import Known, Metadata
from shardman.lord.policies.nodes import NodeHealth
from shardman.lord.policies.scrub import Copy, Turns, pause
from shardman.lord.sessions import Sessions
from shardman.lord.watchers.readers import Readers
from shardman.pg.comparison import Changed, Unsettled
from shardman.sql.loader import queries

log = structlog.get_logger()

#: How long nothing is looked for when nothing is due, or the scrub is off, in seconds.
IDLE_S = 1.0


class Comparing(abc.ABC):
    """Compares what is due, one after the other, for one leadership.

    Args:
        nodes: what is known of the workers: copies on those that are silent are left alone.
    """

    def __init__(
        self, sessions: Sessions, askers: Askers, metadata: Metadata, nodes: NodeHealth
    ) -> None:
        self._sessions = sessions
        self._readers = Readers(sessions, askers)
        self._metadata = metadata
        self._nodes = nodes
        self._turns = Turns()

    #: The name of the query in watch.sql that says what was compared: its name, its node, its age in seconds.
    compared: str

    @abc.abstractmethod
    def _copies(self, known: Known, silent: set[int]) -> tuple[list[Copy], list[Copy]]:
        """What can be compared, and what cannot as a node is silent."""

    @abc.abstractmethod
    async def _look(self, known: Known, copy: Copy) -> tuple[int, float]:
        """Compares one and deals with what was found: the bytes that each copy has, the seconds that it took.

        Raises:
            Unsettled, Changed, or what a node that does not answer does.
        """

    async def run(self) -> None:
        """Compares until cancelled."""
        await self._remember()
        while True:
            pause_s = await self._step()
            await asyncio.sleep(pause_s)

    async def _remember(self) -> None:
        """When a former shardlord has compared each."""
        lord = await self._sessions.lord()
        try:
            now = time.monotonic()
            cur = await lord.execute(queries("watch")[self.compared])
            rows: Iterable[tuple[str, int, float]] = await cur.fetchall()
            for name, node, age in rows:
                self._turns.tried((name, node), now - age)
        finally:
            await self._sessions.give_back(lord)

    async def _step(self) -> float:
        """Compares the copy that is due; how long to pause, in seconds."""
        known, silent, now = self._metadata.known, self._nodes.silent(), time.monotonic()
        self._turns.keep(*self._copies(known, silent), now)
        copy = self._turns.next(known.settings.scrub_every, now)
        if copy is None or not (rate := await self._readers.rate(known)):
            return IDLE_S
        self._turns.tried(copy, now)
        try:
            size, took = await self._look(known, copy)
        except Unsettled as held:
            log.debug("not compared", name=copy[0], node=copy[1], waits_for=str(held))
            return IDLE_S
        except (Changed, LordLost, *NO_ANSWER):
            return IDLE_S
        return pause(size, rate, took)
