"""What can happen inside a server: a process that hangs, is ended or killed, no connection left."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack, suppress

import psycopg

from shardman.sql.loader import queries
from shardman.testing.cluster import LORD
from shardman.testing.striking import Striking


class Inside(Striking):
    """What befalls a process or the connections of one server."""

    def _one(self, node: int, process: str) -> int | None:
        """One process of a kind; None where there is none, or the node does not answer."""
        with suppress(psycopg.Error), self._cluster.connect(node, connect_timeout=3) as conn:
            query = queries("soak")[f"process_{process.replace(' ', '_')}"]
            found = [row[0] for row in conn.execute(query).fetchall()]
            return int(self._rng.choice(found)) if found else None
        return None

    def hang(self, process: str, seconds: float) -> None:
        """A process is stopped (SIGSTOP)."""
        pid = self._one(self._pick(), process)
        if pid is None:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def end(self, process: str) -> None:
        """A process is ended (pg_terminate_backend)."""
        node = self._pick()
        pid = self._one(node, process)
        with suppress(psycopg.Error):
            self._cluster.sql(node, "select pg_terminate_backend(%s)", (pid or 0,))

    def kill(self) -> None:
        """Any process is killed (SIGKILL): its server ends all sessions and recovers from the WAL."""
        pid = self._one(self._strike(), "any")
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def hang_lord(self, seconds: float) -> None:
        """The shardlord itself is stopped."""
        pid = self._cluster.lord_pid
        if pid is None:
            return
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(pid, signal.SIGCONT)

    def fill(self, seconds: float) -> None:
        """No connection is left on a node, not even for a superuser."""
        self._fill(self._strike(), seconds)

    def fill_lord(self, seconds: float) -> None:
        """No connection is left on the lord's server."""
        self._fill(LORD, seconds)

    def _fill(self, node: int, seconds: float) -> None:
        with ExitStack() as taken:
            with suppress(psycopg.OperationalError):
                while True:
                    taken.enter_context(self._cluster.connect(node, connect_timeout=3))
            time.sleep(seconds)
