"""A command's entry in the journal. Whoever runs, finishes or undoes the command writes through it, so nobody
else needs to know its id or the number of its attempt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from psycopg.types.json import Jsonb

from shardman.errors import Code, Refused, Temporary
from shardman.lord.failures import Failure
from shardman.lord.journal import BEFORE_S, Journal
from shardman.model.plan import Json, Phase, Plan, Step
from shardman.pg.connection import Connection
from shardman.steps.base import StepKind, UndoableStep, bind, concurrent
from shardman.steps.state import TABLES


class Canceled(Exception):
    """The user took the command back."""


@dataclass(frozen=True)
class Recorded:
    """A step as the journal has it."""

    attempt: int
    n: int
    kind: str
    args: Mapping[str, Any]
    title: str


class Entry:
    """What the journal has of one attempt of a command.

    Args:
        cmd_id: the command.
        attempt: its number, from 1; 0 where nobody has begun the command.
    """

    def __init__(self, journal: Journal, cmd_id: int, attempt: int = 0) -> None:
        self.cmd_id = cmd_id
        self.attempt = attempt
        self.journal = journal
        #: Steps of the whole plan, where it is known.
        self._total: int | None = None

    @classmethod
    async def begin(cls, journal: Journal, cmd_id: int) -> Self | None:
        """Marks a command as in progress; the entry of a new attempt.

        Returns:
            None when it was canceled a moment ago.
        """
        rows = await journal.rows("begin_command", id=cmd_id)
        if rows:
            return cls(journal, cmd_id, int(rows[0]["attempt"]))
        if not await journal.ours():
            raise Refused(f"command {cmd_id} is not ours to begin")
        return None

    async def store(self, plan: Plan) -> None:
        """Writes the whole plan down, and what its steps let others know; all of it or nothing."""
        self._total = len(plan)
        if not self._total:
            return
        rows: dict[str, list[dict[str, Any]]] = {table: [] for table in ("cmd_steps", *TABLES)}
        for n, phase, planned in plan.steps():
            step = bind(phase, planned)
            rows["cmd_steps"].append({"n": n, "phase": phase, **_written(planned, step)})
            for state in step.state():
                rows[state.table].append({"n": n, **asdict(state)})
        await self.journal.write(
            "plan_steps",
            id=self.cmd_id,
            attempt=self.attempt,
            **{table: json.dumps(found) for table, found in rows.items()},
        )

    def groups(self, plan: Plan, phase: Phase) -> list[list[Recorded]]:
        """The steps of a phase of the plan, those of a group at the same time."""
        return [
            [Recorded(self.attempt, n, s.kind, s.args, s.title) for n, s in group]
            for group in plan.groups(phase, concurrent)
        ]

    async def start_step(self, step: Recorded, *, durable: bool) -> None:
        """Writes down that a step begins.

        Args:
            durable: whether it must survive a crash of the server before anything is made. The steps
                behind the switch need not: they are all repeated until known to be done, and they
                run while a cut-over is up.
        """
        await self.journal.write(
            "start_step",
            id=self.cmd_id,
            attempt=step.attempt,
            n=step.n,
            total=self._total or step.n,
            commit="local" if durable else "off",
        )
        if durable and not await self.journal.copied(BEFORE_S):
            raise Temporary(
                "no worker confirms what is written in the lord's database",
                code=Code.REPLICATION_STALLED,
            )

    async def end_step(self, step: Recorded, state: str, error: str | None = None) -> None:
        await self.journal.write(
            "end_step", id=self.cmd_id, attempt=step.attempt, n=step.n, state=state, error=error
        )

    async def switch(self, conn: Connection, epoch: int, data: Mapping[str, Json]) -> None:
        """Decides, in the caller's transaction.

        Args:
            data: what was measured until now: whoever finishes the command did not see it.

        Raises:
            Canceled: the user was quicker, or the leadership is over.
        """
        params = {"id": self.cmd_id, "epoch": epoch, "data": Jsonb(data)}
        cur = await conn.execute(self.journal.sql("switch"), params)
        if cur.rowcount == 0:
            raise Canceled

    async def switched(self, conn: Connection) -> None:
        """The steps of the switch are done, in the caller's transaction."""
        params = {"id": self.cmd_id, "attempt": self.attempt}
        await conn.execute(self.journal.sql("switch_steps"), params)

    async def end(
        self,
        status: str,
        failure: Failure | None = None,
        result: str | None = None,
        data: Mapping[str, Json] | None = None,
    ) -> None:
        """Writes down how the command ended, unless it was canceled before it began.

        Args:
            failure: of one that failed.
            result: what it has to say, in sentences.
            data: what it has measured; what was known at its switch need not be told again.
        """
        ended = await self.journal.rows(
            "end_command",
            id=self.cmd_id,
            status=status,
            error=failure.sentence if failure else None,
            code=Code.CANCELED if status == "canceled" else failure.code if failure else None,
            result=result,
            data=Jsonb(data) if data else None,
        )
        if not ended and not await self.journal.ours():
            raise Refused(f"command {self.cmd_id} is not ours to end")
        if status != "waiting":
            await self.forget_secret()

    async def add_result(self, sentence: str) -> None:
        await self.journal.rows("add_result", id=self.cmd_id, sentence=sentence)

    async def add_set_aside(self, tables: list[Json]) -> None:
        await self.journal.rows("add_set_aside", id=self.cmd_id, tables=Jsonb(tables))

    async def forget_secret(self) -> None:
        await self.journal.rows("forget_secret", id=self.cmd_id)

    async def progress(
        self, *, bytes_done: int | None, bytes_total: int | None, rows_done: int | None
    ) -> None:
        await self.journal.rows(
            "progress",
            id=self.cmd_id,
            bytes_done=bytes_done,
            bytes_total=bytes_total,
            rows_done=rows_done,
        )

    async def waits_for(self, whom: str | None) -> None:
        await self.journal.rows("waits_for", id=self.cmd_id, whom=whom)

    async def to_undo(self) -> list[Recorded]:
        """What the command has begun before the switch, in all attempts, the newest first. What later commands
        have made again under the same name is left to them."""
        await self.journal.rows("supersede", id=self.cmd_id)
        return [Recorded(**r) for r in await self.journal.rows("undo_steps", id=self.cmd_id)]

    async def to_finish(self) -> list[Recorded]:
        """What is not done of the steps behind the switch."""
        rows = await self.journal.rows("finish_steps", id=self.cmd_id, attempt=self.attempt)
        return [Recorded(**r) for r in rows]


def _written(planned: Step, step: StepKind) -> dict[str, Any]:
    made = step.makes() if isinstance(step, UndoableStep) else None
    return {
        "kind": planned.kind,
        "args": dict(planned.args),
        "title": planned.title,
        "makes": made.what if made is not None and made.shared else None,
    }
