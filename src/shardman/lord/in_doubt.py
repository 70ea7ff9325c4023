"""What this shardlord has prepared on nodes and not yet ended there: cut-overs that are in doubt as soon as the
lord's database is lost. Known in memory, over leaderships: the journal is lost with the database."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Decision(Enum):
    """What this process knows of a switch."""

    NEVER = "its COMMIT was not sent, and nobody else can send it"
    ASKED = "its COMMIT may have been sent"
    CERTAIN = "it was answered, and may be acted upon"


@dataclass
class InDoubt:
    """What one attempt of a command has prepared.

    Args:
        what: the partition or table, for people.
        nodes: where it stands or may come to stand, in the order in which it is to be committed, each with the
            process number of the session that prepares there.
    """

    cmd_id: int
    attempt: int
    what: str
    nodes: dict[int, int]
    decision: Decision = Decision.NEVER
    since: float = field(default_factory=time.monotonic)
    #: Of which nodes was said that it stays there; 0: that it is not decided.
    told: set[int] = field(default_factory=set)

    def first(self, node: int) -> bool:
        """Whether this is to be said: it comes up again and again."""
        new = node not in self.told
        self.told.add(node)
        return new


class Doubts:
    """All of one process, by command."""

    def __init__(self) -> None:
        self._all: dict[int, InDoubt] = {}

    def prepare(self, cmd_id: int, attempt: int, what: str, nodes: Mapping[int, int]) -> None:
        """These are about to prepare."""
        self._all[cmd_id] = InDoubt(cmd_id, attempt, what, dict(nodes))

    def decide(self, cmd_id: int, decision: Decision) -> None:
        """More is known of a switch. Does nothing for a command that has prepared nothing."""
        if cmd_id in self._all:
            self._all[cmd_id].decision = decision

    def stands(self, cmd_id: int) -> bool:
        """Whether the command has something prepared."""
        return cmd_id in self._all

    def ended(self, cmd_id: int, node: int) -> None:
        """Nothing of the command is prepared on a node any more."""
        if (doubt := self._all.get(cmd_id)) is not None:
            doubt.nodes.pop(node, None)
            if not doubt.nodes:
                del self._all[cmd_id]

    def forget(self, cmd_id: int) -> None:
        """Somebody else ends it."""
        self._all.pop(cmd_id, None)

    def all(self) -> list[InDoubt]:
        """Those that stand, the oldest first."""
        return list(self._all.values())

    def longest(self) -> float:
        """For how long the oldest one stands, in seconds."""
        return max((time.monotonic() - d.since for d in self._all.values()), default=0.0)
