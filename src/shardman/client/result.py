"""A command as the view `shardman.commands` shows it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Self

from shardman.errors import Code, UserError

_OPEN = ("waiting", "in progress")


@dataclass(frozen=True)
class Result:
    """How a command stands, or ended. The fields are the columns of `shardman.commands`.

    What programs need is in `result_data` (docs/commands/README.md) and `error_code` (docs/errors.md, and
    `shardman.Code`); `result` and `error` are sentences for people.
    """

    id: int
    cmd_type: str
    opts: str | None
    status: str
    error: str | None = None
    result: str | None = None
    parent: int | None = None
    submitted_by: str | None = None
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    duration: timedelta | None = None
    step_no: int | None = None
    steps_total: int | None = None
    step_name: str | None = None
    bytes_done: int | None = None
    bytes_total: int | None = None
    rows_done: int | None = None
    waits_for: str | None = None
    attempt: int = 0
    result_data: dict[str, Any] | None = None
    error_code: str | None = None

    @classmethod
    def of(cls, row: dict[str, Any]) -> Self:
        """Reads a row of `shardman.commands`."""
        return cls(**{f.name: row[f.name] for f in fields(cls) if f.name in row})

    @property
    def ended(self) -> bool:
        """Whether it is over, well or not."""
        return self.status not in _OPEN

    @property
    def ok(self) -> bool:
        """Whether it happened: ``success``, or ``done`` for a command of several parts."""
        return self.status in ("success", "done")

    @property
    def title(self) -> str:
        """The command with its arguments, for a person."""
        return f"{self.cmd_type} {self.opts or ''}".strip()

    def check(self) -> Self:
        """Returns itself.

        Raises:
            UserError: the command failed or was cancelled; its `code` is the command's.
        """
        if self.ended and not self.ok:
            raise UserError(
                f"command {self.id} ({self.title}) {self.status}: {self.error or ''}",
                code=Code.of(self.error_code),
            )
        return self
