"""What tells a process that partitions have moved: one session for each node that it is connected to, however
many connections it has there.

A session of each connection could listen, too. But PostgreSQL wakes every session that listens whenever anybody
in the database notifies anything, and a listener that is long in a transaction keeps the queue (decision 0063).

Nothing here waits, and no thread runs: who is about to send a statement looks whether something has arrived. So
connections of both kinds, of any thread and any event loop share it.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import psycopg

#: What a node notifies when its partitions are somewhere else (`sql/routines/60_reconcile.sql`).
CHANNEL = "shardman_layout"
#: How often is looked at most; and how often a connection follows what it has heard.
LOOK_SECONDS = 0.05
#: How long nobody tries again where no session was to be had.
_PATIENCE_SECONDS = 30.0


@dataclass
class Ear:
    """Hears one node for all connections of the process to it.

    Args:
        heard: goes up whenever it cannot be said any more that nothing has moved.
    """

    heard: int = 0
    session: Any = None
    users: int = 0
    pid: int = field(default_factory=os.getpid)
    _look_at: float = 0.0
    _try_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def listen(self) -> int:
        """How often something was heard, as of the last look, which is made anew when it is due."""
        now = time.monotonic()
        if now < self._look_at or not self._lock.acquire(blocking=False):
            return self.heard
        try:
            self._look_at = now + LOOK_SECONDS
            if self.session is not None:
                self._read(self.session.pgconn)
        finally:
            self._lock.release()
        return self.heard

    def _read(self, pgconn: Any) -> None:
        try:
            pgconn.consume_input()
            while (told := pgconn.notifies()) is not None:
                self.heard += told.relname == CHANNEL.encode()
        except psycopg.OperationalError:
            self._end()

    def wants_session(self) -> bool:
        """Whether the one who asks is to open a session, and hand it over; nobody else is told so meanwhile."""
        with self._lock:
            if self.session is not None or time.monotonic() < self._try_at:
                return False
            self._try_at = time.monotonic() + _PATIENCE_SECONDS
            return True

    def take(self, session: Any) -> None:
        """A session that listens. What was notified before is not known."""
        with self._lock:
            self.session = session
            self.heard += 1
            if not self.users:
                self._end()

    def leave(self) -> None:
        """A connection is closed; the last one ends the session."""
        with self._lock:
            self.users -= 1
            if not self.users:
                self._end()
                self._try_at = 0.0

    def _end(self) -> None:
        if self.session is not None:
            # A child process that ends must not end what is its parent's.
            if os.getpid() == self.pid:
                # Of either kind of connection, and without waiting: what is left of it needs no event loop.
                self.session.pgconn.finish()
            self.session = None
            self.heard += 1


_ears: dict[tuple[Any, ...], Ear] = {}
_ears_lock = threading.Lock()


def ear_of(here: Any) -> Ear:
    """The one for the server and database that a session is connected to; `Ear.leave` gives it back."""
    info = here.info
    # A child process must not read what its parent hears.
    key = (os.getpid(), info.host, info.port, info.dbname, info.user)
    with _ears_lock:
        ear = _ears.setdefault(key, Ear())
        with ear._lock:  # noqa: SLF001 - it is of this module
            ear.users += 1
        return ear
