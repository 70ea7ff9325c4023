"""Which replica is compared next, and when. No I/O.

Each replica is compared again when some time has gone by, the one that has waited longest first, and no
faster than so many bytes a second are read.
"""

from __future__ import annotations

import math
from collections.abc import Collection

#: A partition, and the node of the replica; or a shared table, and 0: its copies are compared all together.
Copy = tuple[str, int]

#: Between two comparisons, in seconds: the smallest tables cost round trips.
LEAST_PAUSE_S = 1.0


class Turns:
    """When each replica was compared, or tried to be."""

    def __init__(self) -> None:
        self._since: dict[Copy, float] = {}
        self._away: frozenset[Copy] = frozenset()

    def keep(self, copies: Collection[Copy], away: Collection[Copy], now: float) -> None:
        """What is to be compared. A new one was compared when it was made.

        Args:
            away: those of which a node is silent. When it is back they come first: somebody else may have
                taken what was meant for it.
        """
        self._since = {c: -math.inf if c in self._away else self._since.get(c, now) for c in copies}
        self._away = frozenset(away)

    def next(self, every: float, now: float) -> Copy | None:
        """The one that is due.

        Args:
            every: seconds between two comparisons of one.
        """
        due = [(at, copy) for copy, at in self._since.items() if now - at >= every]
        return min(due)[1] if due else None

    def tried(self, copy: Copy, at: float) -> None:
        """It was compared, or could not be: others come first."""
        self._since[copy] = at


def pause(size: int, rate: int, took: float) -> float:
    """How long nothing is compared after a comparison, in seconds.

    Args:
        size: bytes that were read.
        rate: bytes a second that may be read.
        took: seconds that it took.
    """
    return max(LEAST_PAUSE_S, size / rate - took)
