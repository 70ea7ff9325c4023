"""What viewers see, read once for all of a role, as often as somebody looks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import psycopg
import structlog

from shardman.errors import Code, UserError
from shardman.nodes import status
from shardman.nodes.status import Row, Status
from shardman.pg.connection import SyncConnection
from shardman.pg.wording import in_words
from shardman.sql.loader import queries
from shardman.web.rates import Rate, Rates

log = structlog.get_logger()

T = TypeVar("T")

#: Seconds between two looks, or four times what one takes: a large cluster is looked at less often.
EVERY_S = 1.0
SHARE = 4.0
#: Nobody has asked for so many seconds: nothing is read any more.
UNWATCHED_S = 15.0
#: Nothing newer for so many seconds, or for so many times what a look takes: it is said.
LATE_S = 10.0
LATE_SHARE = 8.0
#: Commands of the history that are shown at once.
HISTORY = 100


@dataclass(frozen=True)
class Seen:
    """The cluster at one moment.

    Args:
        at: when it was read.
        history: commands, the newest first.
        may_act: the role may submit commands.
        rates: rows written and read a second of each partition, where they are known.
        took: seconds that it took to read; the next comes after four times as many.
    """

    status: Status
    history: list[Row]
    may_act: bool
    at: datetime
    rates: Mapping[str, Rate] = field(default_factory=dict)
    took: float = 0.0


class Look:
    """One role's view.

    Args:
        dsn: of any node, as the role.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._sessions = status.Watch(dsn)
        self._seen: Seen | None = None
        self._error: UserError | None = None
        self._seen_at = 0.0
        self._took = 0.0
        self._wanted = 0.0
        self._rates = Rates()
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._details: dict[object, tuple[float, asyncio.Task[Any]]] = {}

    async def now(self) -> tuple[Seen | None, UserError | None]:
        """The last that was seen, and why there is nothing newer."""
        self._wanted = time.monotonic()
        if self._task is None or self._task.done():
            self._news.clear()
            self._task = asyncio.create_task(self._watch(), name="look")
            await self._news.wait()
        return self._seen, self._error or self._late()

    def _late(self) -> UserError | None:
        """A look that hangs must not pass for one that found nothing."""
        age = time.monotonic() - self._seen_at
        if age < max(LATE_S, LATE_SHARE * self._took):
            return None
        return UserError(
            "the nodes have not answered since",
            "One of them may hang; it is named when it has been given up",
            code=Code.NODE_UNREACHABLE,
        )

    async def _watch(self) -> None:
        while time.monotonic() - self._wanted < UNWATCHED_S:
            begun = time.monotonic()
            self._error = await self._look()
            self._news.set()
            took = time.monotonic() - begun
            if self._error is None:
                self._took, self._seen_at = took, time.monotonic()
            await asyncio.sleep(max(EVERY_S - took, SHARE * took - took, 0.1))
        await asyncio.to_thread(self._sessions.close)

    async def _look(self) -> UserError | None:
        """Reads; what prevented that."""
        try:
            begun = time.monotonic()
            seen = await asyncio.to_thread(_read, self._sessions)
            now = time.monotonic()
            rates = self._rates.take(now, seen.status.partitions)
            self._seen = replace(seen, rates=rates, took=now - begun)
        except UserError as error:
            return error
        except psycopg.Error as error:
            return in_words(error)
        except Exception as error:
            # A mistake of ours: what was seen before must not pass for what is.
            log.exception("the cluster could not be read")
            return UserError(
                f"the page could not read the cluster: {type(error).__name__}",
                "See the log of shardman web, and report it",
                code=Code.INTERNAL_ERROR,
            )
        return None

    async def detail(self, key: object, read: Callable[[str], T]) -> T:
        """Something that few look at, read again after a second.

        Args:
            key: what it is.
            read: gets the role's connection string; runs in a thread.

        Raises:
            UserError: it could not be read.
        """
        now = time.monotonic()
        for old, (at, task) in list(self._details.items()):
            if now - at > EVERY_S and task.done():
                del self._details[old]
        if key not in self._details:
            task = asyncio.create_task(asyncio.to_thread(read, self._dsn))
            self._details[key] = (now, task)
        try:
            found: T = await asyncio.shield(self._details[key][1])
        except psycopg.Error as error:
            raise in_words(error) from None
        return found

    def hurry(self) -> None:
        """Somebody has changed something."""
        self._details.clear()


class Looks:
    """Those of all roles; one for all viewers who have logged in alike."""

    def __init__(self) -> None:
        self._all: dict[str, Look] = {}

    def of(self, dsn: str) -> Look:
        """That of one role."""
        return self._all.setdefault(dsn, Look(dsn))


def _read(sessions: status.Watch) -> Seen:
    now, reach = sessions.read()
    try:
        with reach.session(reach.lord) as lord:
            return _with_history(now, lord)
    except (UserError, psycopg.Error):
        return _with_history(now, reach.here)


def _with_history(now: Status, session: SyncConnection) -> Seen:
    history = session.execute(queries("web")["history"], (HISTORY,)).fetchall()
    may = session.execute(queries("web")["may_act"]).fetchone()
    return Seen(now, history, bool(may and may["pg_has_role"]), datetime.now(UTC))
