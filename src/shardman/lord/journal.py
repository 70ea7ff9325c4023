"""The journal: what a shardlord does, written down before it is done.

Every write names the epoch and changes nothing when it is over; `Refused` then ends the shardlord's
tenure. A lost connection to the lord's database ends it too (`LordLost`): without the journal nothing
may be done.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
import structlog
from psycopg.rows import dict_row

from shardman.errors import Refused, Temporary
from shardman.model.plan import Plan
from shardman.sql.loader import queries
from shardman.steps.base import Connection

log = structlog.get_logger()

#: Before anything is made it can still be given up, so a worker that streams has long to confirm; what
#: is decided must be done, so behind a switch it is not waited for longer.
BEFORE_S = 20.0
BEHIND_S = 5.0
COPIED_PAUSE_S = 0.002


class LordLost(Exception):
    """The lord's database cannot be reached."""


@dataclass(frozen=True)
class Recorded:
    """A step as the journal has it."""

    attempt: int
    n: int
    kind: str
    args: Mapping[str, Any]
    title: str


class Journal:
    """Writes of one tenure to cmd_log and cmd_steps.

    Args:
        conn: an autocommit connection to the lord's database, used by the journal alone.
        epoch: of the tenure.
    """

    def __init__(self, conn: Connection, epoch: int) -> None:
        self._conn = conn
        self._epoch = epoch
        self._sql = queries("journal")
        #: The workers that do not answer now: nobody waits for what they confirm.
        self.silent: Callable[[], set[int]] = set

    def sql(self, name: str) -> LiteralString:
        """A statement for use inside a step's own transaction."""
        return self._sql[name]

    async def _rows(self, name: str, **params: Any) -> list[dict[str, Any]]:
        try:
            async with self._conn.cursor(row_factory=dict_row) as cur:
                await cur.execute(self._sql[name], {"epoch": self._epoch, **params})
                return await cur.fetchall() if cur.description else []
        except psycopg.OperationalError as error:
            raise LordLost(str(error)) from error

    async def _must(self, name: str, **params: Any) -> None:
        """Runs a write that changes nothing only when the epoch is over."""
        try:
            cur = await self._conn.execute(self._sql[name], {"epoch": self._epoch, **params})
        except psycopg.OperationalError as error:
            raise LordLost(str(error)) from error
        if cur.rowcount == 0:
            raise Refused(f"epoch {self._epoch} is over")

    async def begin(self, cmd_id: int) -> int | None:
        """Marks a command as in progress; returns the number of the attempt.

        Returns:
            None when it was canceled a moment ago.
        """
        rows = await self._rows("begin_command", id=cmd_id)
        if rows:
            return int(rows[0]["attempt"])
        if not await self._rows("ours"):
            raise Refused(f"command {cmd_id} is not ours to begin")
        return None

    async def begin_child(self, parent: int, cmd_type: str, opts: list[str | None]) -> int:
        """Writes down a command that is a part of another one; returns its id."""
        rows = await self._rows("begin_child", parent=parent, cmd_type=cmd_type, opts=opts)
        if not rows:
            raise Refused(f"epoch {self._epoch} is over")
        return int(rows[0]["id"])

    async def store(self, cmd_id: int, attempt: int, plan: Plan) -> None:
        """Writes the whole plan down."""
        steps = [
            {"n": n, "phase": phase, "kind": s.kind, "args": dict(s.args), "title": s.title}
            for n, phase, s in plan.steps()
        ]
        if steps:
            await self._must("plan_steps", id=cmd_id, attempt=attempt, steps=json.dumps(steps))

    async def start_step(
        self, cmd_id: int, attempt: int, n: int, total: int, *, durable: bool
    ) -> None:
        """Writes down that a step begins.

        Args:
            durable: whether it must survive a crash of the server before anything is made. The steps
                behind the switch need not: they are all repeated until known to be done, and they
                run while a fence is up.
        """
        commit = "local" if durable else "off"
        await self._must("start_step", id=cmd_id, attempt=attempt, n=n, total=total, commit=commit)
        if durable and not await self.copied(BEFORE_S):
            raise Temporary("no worker confirms what is written in the lord's database")

    async def copied(self, patience: float) -> bool:
        """Waits until a worker has all that was written: with the lord's server nothing is lost that was
        acted upon. Does not wait when no worker streams, or `lord_sync` is off.

        Args:
            patience: in seconds.

        Returns:
            False when workers stream and none has confirmed it in time.
        """
        until = time.monotonic() + patience
        rows = await self._rows("position")
        while await self._lacks(rows[0]["lsn"]):
            if time.monotonic() > until:
                log.warning("no worker confirms the lord's metadata")
                return False
            await asyncio.sleep(COPIED_PAUSE_S)
            await self._rows("emit")
        return True

    async def _lacks(self, lsn: str) -> bool:
        rows = await self._rows("copied", lsn=lsn, silent=list(self.silent()))
        return rows[0]["copied"] is False

    async def end_step(
        self, cmd_id: int, attempt: int, n: int, state: str, error: str | None = None
    ) -> None:
        await self._must("end_step", id=cmd_id, attempt=attempt, n=n, state=state, error=error)

    async def end(self, cmd_id: int, status: str, error: str | None, result: str | None) -> None:
        """Writes down how a command ended, unless it was canceled before it began."""
        ended = await self._rows(
            "end_command", id=cmd_id, status=status, error=error, result=result
        )
        if not ended and not await self._rows("ours"):
            raise Refused(f"epoch {self._epoch} is over")
        if status != "waiting":
            await self._rows("forget_secret", id=cmd_id)

    async def add_result(self, cmd_id: int, sentence: str) -> None:
        await self._rows("add_result", id=cmd_id, sentence=sentence)

    async def forget_secret(self, cmd_id: int) -> None:
        await self._rows("forget_secret", id=cmd_id)

    async def progress(
        self,
        cmd_id: int,
        *,
        bytes_done: int | None,
        bytes_total: int | None,
        rows_done: int | None,
    ) -> None:
        await self._rows(
            "progress",
            id=cmd_id,
            bytes_done=bytes_done,
            bytes_total=bytes_total,
            rows_done=rows_done,
        )

    async def waits_for(self, cmd_id: int, whom: str | None) -> None:
        await self._rows("waits_for", id=cmd_id, whom=whom)

    async def waiting(self) -> list[dict[str, Any]]:
        return await self._rows("waiting")

    async def unfinished(self) -> list[dict[str, Any]]:
        return await self._rows("unfinished")

    async def cancel_requests(self) -> set[int]:
        return {int(r["id"]) for r in await self._rows("cancel_requests")}

    async def leftovers(self) -> list[dict[str, Any]]:
        """Ended commands of which something remains to be undone or finished."""
        return await self._rows("leftovers")

    async def supersede(self, cmd_id: int) -> None:
        """Leaves to later commands what they have made again under the same name."""
        await self._rows("supersede", id=cmd_id)

    async def to_undo(self, cmd_id: int) -> list[Recorded]:
        return [Recorded(**r) for r in await self._rows("undo_steps", id=cmd_id)]

    async def to_finish(self, cmd_id: int, attempt: int) -> list[Recorded]:
        return [Recorded(**r) for r in await self._rows("finish_steps", id=cmd_id, attempt=attempt)]
