"""Asks the cluster again and again; whatever hangs keeps nobody from the rest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import psycopg

from shardman.cli.live.picture import Picture, Rates, keyed
from shardman.errors import UserError
from shardman.metrics.sampler import Sampler
from shardman.nodes import status
from shardman.nodes.reach import Reach
from shardman.pg.connection import SyncConnection
from shardman.pg.wording import in_words
from shardman.sql.loader import queries

T = TypeVar("T")

#: How often what looks at every partition is asked, in seconds, and the whole status.
DETAILS_EVERY_S = 5.0
STATUS_EVERY_S = 10.0


class Aside:
    """Something that takes a while, in a thread: at most one of it is under way, and nobody waits for it."""

    def __init__(self, work: Callable[[], T], every_s: float) -> None:
        self._work, self._every_s = work, every_s
        self._task: asyncio.Task[Any] | None = None
        self._began = float("-inf")
        self.last: Any = None
        self.wrong: str | None = None

    async def look(self) -> None:
        """Takes what is there, and begins anew when it is time."""
        if self._task is not None and self._task.done():
            self._take(self._task)
            self._task = None
        if self._task is None and time.monotonic() - self._began >= self._every_s:
            self._began = time.monotonic()
            self._task = asyncio.create_task(asyncio.to_thread(self._work))
            # Mostly it is quick.
            await asyncio.wait({self._task}, timeout=0.5)

    def _take(self, task: asyncio.Task[Any]) -> None:
        try:
            self.last, self.wrong = task.result(), None
        except UserError as error:
            self.wrong = error.what
        except psycopg.Error as error:
            self.wrong = in_words(error).what


class Feed:
    """The picture of a cluster, kept up to date.

    Args:
        dsn: of any node.
        partitions: with each partition.
    """

    def __init__(self, dsn: str, *, partitions: bool = True) -> None:
        self._dsn = dsn
        self._sampler = Sampler(dsn, partitions=partitions, details_every_s=DETAILS_EVERY_S)
        self._rates = Rates()
        self._lord: SyncConnection | None = None
        self._status = Aside(lambda: status.read(dsn), STATUS_EVERY_S)
        self._commands = Aside(self._read_commands, 0.0)

    async def begin(self) -> None:
        """Finds the nodes.

        Raises:
            UserError: the cluster cannot be seen.
        """
        await self._sampler.read_members()

    async def picture(self) -> Picture:
        """What is known now."""
        values, *_ = await asyncio.gather(
            self._sampler.sample(), self._status.look(), self._commands.look()
        )
        known = keyed(values)
        return Picture(
            values=known,
            rates=self._rates.follow(known, time.monotonic()),
            status=self._status.last,
            commands=None if self._commands.wrong else self._commands.last,
            wrong=self._status.wrong or self._commands.wrong,
        )

    def _read_commands(self) -> tuple[Mapping[str, Any], ...]:
        if self._lord is None or self._lord.closed:
            with Reach(self._dsn) as reach:
                self._lord = reach.open(reach.lord)
        try:
            return tuple(self._lord.execute(queries("top")["commands"]).fetchall())
        except psycopg.Error:
            self._lord.close()
            raise

    async def close(self) -> None:
        """Ends all sessions."""
        await self._sampler.close()
        if self._lord is not None:
            self._lord.close()
