"""Sessions that were given back, kept a moment for whoever asks next.

To open one costs three round trips and a process on the server, some 6 ms: as much as most steps of a
command do. A rebalance runs one command after the other.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from psycopg.pq import TransactionStatus

from shardman.steps.base import Connection

#: How long one is kept, in seconds, and how many for one server.
KEEP_S = 5.0
KEEP = 4


class IdleSessions:
    """Idle sessions by the connection string that opened them."""

    def __init__(self) -> None:
        self._idle: defaultdict[str, list[Connection]] = defaultdict(list)
        self._ended = False

    def put(self, conninfo: str, conn: Connection) -> bool:
        """Keeps a session, unless a transaction is open in it or there are enough; whether it does."""
        fit = conn.info.transaction_status == TransactionStatus.IDLE
        if self._ended or not fit or len(self._idle[conninfo]) >= KEEP:
            return False
        self._idle[conninfo].append(conn)
        asyncio.get_running_loop().call_later(KEEP_S, self._expire, conninfo, conn)
        return True

    def take(self, conninfo: str) -> Connection | None:
        """A session that was idle for less than KEEP_S. The server may have ended it meanwhile."""
        kept = self._idle[conninfo]
        return kept.pop() if kept else None

    def _expire(self, conninfo: str, conn: Connection) -> None:
        # Taken and given back it has a later call of its own, and this one ends it too early: no harm.
        if conn in self._idle[conninfo]:
            self._idle[conninfo].remove(conn)
            conn.pgconn.finish()

    def end(self) -> None:
        """Closes all, and keeps none any more."""
        self._ended = True
        for kept in self._idle.values():
            for conn in kept:
                conn.pgconn.finish()
        self._idle.clear()
