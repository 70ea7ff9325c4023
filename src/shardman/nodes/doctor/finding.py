"""What the doctor finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    ERROR = "error"
    """With it there is no cluster, or not a whole one."""
    WARNING = "warning"
    """It works, until something happens."""
    NOTE = "note"
    """To know, or to do better."""


@dataclass(frozen=True)
class Diagnosis:
    """One finding.

    Args:
        level: how bad it is.
        subject: where it is, e.g. a server's name.
        what: what is wrong, without a full stop.
        mend: the statements that mend it, to be run there; empty where none can.
        hint: what else to do.
    """

    level: Level
    subject: str
    what: str
    mend: str = ""
    hint: str = ""
