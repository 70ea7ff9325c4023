"""When a node is visited again, and when it is away."""

from __future__ import annotations

import enum
from dataclasses import dataclass

#: Pause between two visits of a node that is in line, and of one that is not.
CALM_S = 5.0
BUSY_S = 0.5
DOWN_S = 1.0
#: The same, of one that was removed while it was down: it may never come back.
REMOVED_S = 5.0
#: A node where nothing was written since it was in line is looked at so often nevertheless.
CLOSELY_EVERY_S = 60.0


class Visit(enum.Enum):
    """How a visit went."""

    IN_LINE = "in line"
    #: Something differs from the metadata still.
    DIFFERS = "differs"
    #: The node is there; what it needs is not free just now.
    LOCKED = "locked"
    AWAY = "away"
    #: It was removed and cannot be reached.
    REMOVED_AWAY = "removed, away"
    #: It was removed, and says that it knows nothing of this cluster any more.
    REMOVED_THERE = "removed, there"


PAUSE_S = {
    Visit.IN_LINE: CALM_S,
    Visit.DIFFERS: BUSY_S,
    Visit.LOCKED: DOWN_S,
    Visit.AWAY: DOWN_S,
    Visit.REMOVED_AWAY: REMOVED_S,
    Visit.REMOVED_THERE: REMOVED_S,
}
_THERE = {Visit.IN_LINE, Visit.DIFFERS, Visit.REMOVED_THERE}
_AWAY = {Visit.AWAY, Visit.REMOVED_AWAY}


class Change(enum.Enum):
    """What a visit says that was not known."""

    BACK = "node back"
    AWAY = "node away"


class AwayNodes:
    """Nodes that could not be reached at their last visit."""

    def __init__(self) -> None:
        self.away: set[int] = set()

    def keep(self, nodes: set[int]) -> None:
        """Forgets all but these."""
        self.away &= nodes

    def visited(self, node: int, visit: Visit) -> Change | None:
        """Notes how a visit went; returns what has changed. Of a node that was there and locked nothing
        is concluded."""
        if visit in _THERE and node in self.away:
            self.away.discard(node)
            return Change.BACK
        if visit in _AWAY and node not in self.away:
            self.away.add(node)
            return Change.AWAY
        return None


@dataclass(frozen=True)
class _InLine:
    changes: int
    at: float


class InLine:
    """Nodes that were in line, and whether they can be something else by now.

    To compare a node with its metadata takes the longer the more partitions there are. What a server
    counts of the rows that were written to the catalogs and the metadata is read at once.
    """

    def __init__(self) -> None:
        self._found: dict[int, _InLine] = {}

    def is_known(self, node: int, changes: int | None, now: float) -> bool:
        """Whether nothing was written on a node since it was found in line, not long ago.

        Args:
            changes: what its server counts; None when it counts nothing.
        """
        found = self._found.get(node)
        return found is not None and found.changes == changes and now - found.at < CLOSELY_EVERY_S

    def found(self, node: int, visit: Visit, changes: int | None, now: float) -> None:
        """Notes how a close look at a node went.

        Args:
            changes: as counted before it, so what came meanwhile is looked at the next time.
        """
        if visit is Visit.IN_LINE and changes is not None:
            self._found[node] = _InLine(changes, now)
        else:
            self.forget(node)

    def forget(self, node: int) -> None:
        """What is known is of a session that has ended: its server may have begun to count anew."""
        self._found.pop(node, None)
