"""How an attempt of a command ended."""

from __future__ import annotations

from dataclasses import dataclass

from shardman.commands.base import Command
from shardman.lord.failures import Failure
from shardman.lord.run import CommandRun
from shardman.model.plan import Json


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: str
    failure: Failure | None = None
    #: What is to be done, by id, before the command begins anew.
    first: tuple[tuple[int, Command], ...] = ()

    @property
    def error(self) -> str | None:
        """Why it failed, in a sentence."""
        return self.failure.sentence if self.failure else None

    def data(self, run: CommandRun) -> dict[str, Json]:
        """What is told of it to programs. What failed has made nothing, so it has no figures."""
        if self.failure is not None:
            sqlstate = self.failure.sqlstate
            return {} if sqlstate is None else {"sqlstate": sqlstate}
        return run.figures.data() if self.status in ("success", "done") else {}
