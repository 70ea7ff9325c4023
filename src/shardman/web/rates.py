"""Rows of each partition written and read a second: what servers have counted, from one look to another."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from shardman.nodes.status import Row

#: Seconds over which a rate is reckoned: a session reports what it has done at most once a second.
OVER_S = 10.0
#: Looks that are kept for it.
KEPT = 16


@dataclass(frozen=True)
class Rate:
    """Of a partition's primary, in rows a second."""

    written: float
    read: float


#: By partition and the node of its primary: another node has counted for itself.
_Counted = Mapping[tuple[str, int], tuple[int, int]]


@dataclass
class Rates:
    """The last few looks of one viewer."""

    _looks: deque[tuple[float, _Counted]] = field(default_factory=lambda: deque(maxlen=KEPT))

    def take(self, now: float, partitions: Iterable[Row]) -> dict[str, Rate]:
        """One look more; the rates since an earlier one. What was not counted in both, by the same server and
        without a restart between them, has none.

        Args:
            now: seconds, on any clock that does not go back.
            partitions: as a `Status` has them.
        """
        counted = {
            (p["part_name"], p["primary_on"]): (p["written"], p["read"])
            for p in partitions
            if p["written"] is not None
        }
        while len(self._looks) > 1 and now - self._looks[1][0] >= OVER_S:
            self._looks.popleft()
        found: dict[str, Rate] = {}
        if self._looks and now > self._looks[0][0]:
            at, before = self._looks[0]
            found = dict(_between(before, counted, now - at))
        self._looks.append((now, counted))
        return found


def _between(before: _Counted, after: _Counted, seconds: float) -> Iterable[tuple[str, Rate]]:
    for key, (written, read) in after.items():
        if key in before:
            more = written - before[key][0], read - before[key][1]
            if min(more) >= 0:
                yield key[0], Rate(more[0] / seconds, more[1] / seconds)
