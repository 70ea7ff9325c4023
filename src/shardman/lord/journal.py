"""The journal: what a shardlord does, written down before it is done. What it has of one command is written
by that command's `Entry` (`lord/entry.py`).

Every write names the epoch and changes nothing when it is over; `Refused` then ends the shardlord's
leadership. A lost connection to the lord's database ends it too (`LordLost`): without the journal nothing
may be done.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, LiteralString

import psycopg
import structlog
from psycopg.rows import dict_row

from shardman.commands.base import Command
from shardman.errors import Refused
from shardman.pg.connection import Connection
from shardman.sql.loader import queries

log = structlog.get_logger()

#: Before anything is made it can still be given up, so a worker that streams has long to confirm; what
#: is decided must be done, so behind a switch it is not waited for longer.
BEFORE_S = 20.0
BEHIND_S = 5.0
COPIED_PAUSE_S = 0.002


class LordLost(Exception):
    """The lord's database cannot be reached."""


class Journal:
    """Writes of one leadership to cmd_log and cmd_steps.

    Args:
        conn: an autocommit connection to the lord's database, used by the journal alone.
        epoch: of the leadership.
    """

    def __init__(self, conn: Connection, epoch: int) -> None:
        self._conn = conn
        self._epoch = epoch
        self._sql = queries("journal")
        #: The workers that do not answer now: nobody waits for what they confirm.
        self.silent: Callable[[], set[int]] = set

    def sql(self, name: str) -> LiteralString:
        """A statement for use in the transaction of a switch."""
        return self._sql[name]

    async def rows(self, name: str, **params: Any) -> list[dict[str, Any]]:
        """The rows of a statement of queries/journal.sql, which gets the epoch besides the parameters."""
        try:
            async with self._conn.cursor(row_factory=dict_row) as cur:
                await cur.execute(self._sql[name], {"epoch": self._epoch, **params})
                return await cur.fetchall() if cur.description else []
        except psycopg.OperationalError as error:
            raise LordLost(str(error)) from error

    async def write(self, name: str, **params: Any) -> None:
        """Runs a write that changes nothing only when the epoch is over."""
        try:
            cur = await self._conn.execute(self._sql[name], {"epoch": self._epoch, **params})
        except psycopg.OperationalError as error:
            raise LordLost(str(error)) from error
        if cur.rowcount == 0:
            raise Refused(f"epoch {self._epoch} is over")

    async def ours(self) -> bool:
        """Whether the leadership still is."""
        try:
            cur = await self._conn.execute(self._sql["ours"], {"epoch": self._epoch})
        except psycopg.OperationalError as error:
            raise LordLost(str(error)) from error
        return cur.rowcount > 0

    async def begin_child(self, parent: int, command: Command) -> int:
        """Writes down a command that is a part of another one; returns its id."""
        rows = await self.rows(
            "begin_child",
            parent=parent,
            cmd_type=command.name,
            options=json.dumps(command.options()),
        )
        if not rows:
            raise Refused(f"epoch {self._epoch} is over")
        return int(rows[0]["id"])

    async def copied(self, patience: float) -> bool:
        """Waits until a worker has all that was written: with the lord's server nothing is lost that was
        acted upon. Does not wait when no worker streams, or `lord_sync` is off.

        Args:
            patience: in seconds.

        Returns:
            False when workers stream and none has confirmed it in time.
        """
        until = time.monotonic() + patience
        rows = await self.rows("position")
        while await self._lacks(rows[0]["lsn"]):
            if time.monotonic() > until:
                log.warning("no worker confirms the lord's metadata")
                return False
            await asyncio.sleep(COPIED_PAUSE_S)
            await self.rows("emit")
        return True

    async def _lacks(self, lsn: str) -> bool:
        rows = await self.rows("copied", lsn=lsn, silent=list(self.silent()))
        return rows[0]["copied"] is False

    async def waiting(self) -> list[dict[str, Any]]:
        return await self.rows("waiting")

    async def unfinished(self) -> list[dict[str, Any]]:
        return await self.rows("unfinished")

    async def cancel_requests(self) -> set[int]:
        """Commands that somebody wants to be taken back."""
        return {int(r["id"]) for r in await self.rows("cancel_requests")}

    async def leftovers(self) -> list[dict[str, Any]]:
        """Ended commands of which something remains to be undone or finished."""
        return await self.rows("leftovers")
