"""A session in which every wait has an end.

A server process that was stopped, or waits for one that was, answers nothing and closes nothing: neither
a cancel request nor a timeout of the server's helps. So it is this side that hangs up. The server looks now
and then whether its client is still there (`client_connection_check_interval`), and ends what it does for
one that is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection, waiting
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGconn

from shardman.pg.connection import Connection
from shardman.tasks import to_its_end

#: How long one statement may take, in seconds, unless it is `unhurried`. Locks of the application's tables
#: are waited for much shorter.
STATEMENT_S = 120.0
#: What copies, builds, or waits for others' transactions may take this long. It can be taken back
#: meanwhile.
UNHURRIED_S = 7 * 86400.0
#: What was taken back ends within this, or its session does.
CANCEL_S = 0.7
#: How often psycopg looks whether it was interrupted; by us it is woken.
_LOOK_S = 1.0

T = TypeVar("T")


def hang_up(conn: Connection) -> None:
    """Ends a session from this side at once: whoever waits for an answer in it gets an error."""
    if not conn.closed:
        shut(conn.pgconn)


def shut(pgconn: PGconn) -> None:
    """As `hang_up`, for what libpq knows a session by; from any thread."""
    with (
        contextlib.suppress(OSError, psycopg.Error),
        socket.socket(fileno=os.dup(pgconn.socket)) as end,
    ):
        end.shutdown(socket.SHUT_RDWR)


class BoundedConnection(AsyncConnection[Any]):
    """Each wait for the server takes `limit_s` at most; one that is cancelled ends within `CANCEL_S`, or
    the session does. `Connection` is how everybody else calls it."""

    limit_s: float = STATEMENT_S

    async def close(self) -> None:
        """As psycopg's, and whoever waits in it gets an error first. The event loop would keep its socket
        otherwise, and the next session that gets its number could not be opened."""
        if self.lock.locked():
            hang_up(self)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CANCEL_S), self.lock:
                    pass
        await super().close()

    async def wait(self, gen: PQGen[T], *args: Any, **options: Any) -> T:
        """As psycopg's, with an end. Rows of a COPY are waited for one by one.

        Raises:
            psycopg.OperationalError: the server has not answered in time; the session is over.
        """
        overdue = False

        def give_up() -> None:
            nonlocal overdue
            overdue = True
            hang_up(self)

        timer = asyncio.get_running_loop().call_later(self.limit_s, give_up)
        try:
            # Newer versions of psycopg give it a timeout as well.
            how = {**dict(zip(("interval", "timeout"), args, strict=False)), **options}
            return await waiting.wait_async(gen, self.pgconn.socket, **{"interval": _LOOK_S, **how})
        except asyncio.CancelledError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                await to_its_end(self._take_back(gen))
            raise
        except psycopg.OperationalError as error:
            if overdue:
                raise psycopg.OperationalError(
                    f"the server has not answered for {self.limit_s:.0f} s"
                ) from error
            raise
        finally:
            timer.cancel()

    async def _take_back(self, gen: PQGen[Any]) -> None:
        """Asks the server to end what it does; hangs up when it does not. Left halfway, the session would be
        in the middle of an answer, and whatever tidies up in it would fail instead of being cancelled."""
        timer = asyncio.get_running_loop().call_later(CANCEL_S, hang_up, self)
        try:
            with contextlib.suppress(Exception):
                await self.cancel_safe(timeout=CANCEL_S)
            with contextlib.suppress(psycopg.Error):
                await waiting.wait_async(gen, self.pgconn.socket, interval=_LOOK_S)
        finally:
            timer.cancel()


@contextmanager
def unhurried(conn: Connection, limit_s: float = UNHURRIED_S) -> Iterator[None]:
    """Within the block statements of a session may take this long, in seconds."""
    if not isinstance(conn, BoundedConnection):
        yield
        return
    before, conn.limit_s = conn.limit_s, limit_s
    try:
        yield
    finally:
        conn.limit_s = before
