"""Sessions that were given back, kept a moment for whoever asks next.

To open one costs three round trips and a process on the server, some 6 ms: as much as most steps of a
command do. A rebalance runs one command after the other.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from weakref import WeakKeyDictionary

from psycopg.pq import TransactionStatus

from shardman.pg.connection import Connection

#: How long one is kept, in seconds, and how many for one server.
KEEP_S = 5.0
KEEP = 4
#: How long one on the lord's database is: somebody asks for one at least so often (`nodes.HOLD_EVERY_S`), and
#: to open it anew each time would cost an idle shardlord as much as all its other questions there.
KEEP_LORD_S = 15.0


class IdleSessions:
    """Idle sessions by the connection string that opened them."""

    def __init__(self) -> None:
        self._idle: defaultdict[str, list[Connection]] = defaultdict(list)
        self._expiry: WeakKeyDictionary[Connection, asyncio.TimerHandle] = WeakKeyDictionary()
        self._ended = False

    def put(self, conninfo: str, conn: Connection, keep_s: float = KEEP_S) -> bool:
        """Keeps a session, unless a transaction is open in it or there are enough; whether it does."""
        fit = conn.info.transaction_status == TransactionStatus.IDLE
        if self._ended or not fit or len(self._idle[conninfo]) >= KEEP:
            return False
        self._idle[conninfo].append(conn)
        if conn in self._expiry:
            self._expiry[conn].cancel()  # Of when it was given back the last time.
        loop = asyncio.get_running_loop()
        self._expiry[conn] = loop.call_later(keep_s, self._expire, conninfo, conn)
        return True

    def kept(self, conninfo: str) -> list[Connection]:
        """Sessions that have been idle for less than they are kept: whoever uses one takes it off. The server
        may have ended it meanwhile."""
        return self._idle[conninfo]

    def _expire(self, conninfo: str, conn: Connection) -> None:
        # One that was taken is not there.
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
