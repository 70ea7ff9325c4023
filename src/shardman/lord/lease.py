"""Who acts: one shardlord at a time, the others stand by.

The lord's database is the arbiter. A row there, the lease, names the session of the acting shardlord, which
the server ends the moment its process dies, and which renews the lease: that betrays one that hangs. Taking
over raises the epoch; sessions of older epochs are ended and refused from then on. No lock is involved: one
that anybody can take must not decide who acts.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time

import psycopg
import structlog
from psycopg.rows import dict_row

from shardman import names
from shardman.errors import Refused
from shardman.lord.journal import LordLost
from shardman.lord.sessions import open_session
from shardman.pg.connection import Connection
from shardman.sql.loader import queries
from shardman.tasks import pause

log = structlog.get_logger()

RENEW_S = 0.5
TRY_S = 0.25
#: A lease not renewed for so long is taken from a holder that is alive but does not act.
LEASE_S = 5.0

STANDBY = "shardman standby"


class Lease:
    """The right to act, as long as it is renewed."""

    def __init__(self, conn: Connection, epoch: int) -> None:
        self.conn = conn
        self.epoch = epoch
        self._renewed = time.monotonic()

    def silent(self) -> float:
        """For how long the lord's database has not answered, in seconds."""
        return time.monotonic() - self._renewed - RENEW_S

    async def keep(self) -> None:
        """Renews the lease until it is lost.

        Raises:
            Refused: another shardlord has taken over.
            LordLost: the lord's database went away.
        """
        while True:
            try:
                cur = await self.conn.execute(queries("lease")["renew"], {"epoch": self.epoch})
            except psycopg.OperationalError as error:
                raise LordLost(str(error)) from error
            if cur.rowcount == 0:
                raise Refused(f"epoch {self.epoch} is over")
            self._renewed = time.monotonic()
            await pause(RENEW_S)


async def acquire(dsn: str) -> Lease:
    """Waits until this process may act.

    Raises:
        psycopg.OperationalError: the lord's database cannot be reached, or went away.
    """
    conn = await open_session(dsn, STANDBY)
    try:
        while True:
            if (epoch := await _try(conn)) is not None:
                await _begin(conn, epoch)
                return Lease(conn, epoch)
            await asyncio.sleep(TRY_S)
    except BaseException:
        await conn.close()
        raise


async def _try(conn: Connection) -> int | None:
    """Takes the lease if nobody has it; the new epoch. A holder that hangs is ended, and has it until then."""
    async with conn.cursor(row_factory=dict_row) as cur:
        await cur.execute(queries("lease")["holder"], {"timeout": LEASE_S})
        row = await cur.fetchone()
        assert row is not None
        if not row["alive"]:
            holder = f"{socket.gethostname()} pid {os.getpid()}"
            await cur.execute(queries("lease")["take"], {"holder": holder, "seen": row["epoch"]})
            taken = await cur.fetchone()
            return int(taken["epoch"]) if taken else None
        if row["expired"]:
            log.warning("the acting shardlord gives no sign of life", holder=row["holder"])
            await cur.execute(queries("lease")["end_holder"], {"pid": row["pid"]})
        return None


async def _begin(conn: Connection, epoch: int) -> None:
    await conn.execute(
        "select set_config('application_name', %s, false)", (names.application(epoch),)
    )
    await conn.execute("select shardman.admit((select cluster from shardman.local), %s)", (epoch,))
