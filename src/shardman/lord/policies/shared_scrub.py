"""Which copy of a shared table is right, where they differ. No I/O.

What one node alone has was written by somebody behind the others' backs, lost with a disk, or cut off by a
crash between the commits of one transaction, whose client does not know how it has ended. Where no more
than half of all copies agree nothing tells them apart: that is for people.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

#: Rows that are exchanged at most by themselves: where more differ, as after a backup was restored, somebody
#: is to look first.
MOST_ROWS = 1000

T = TypeVar("T")


def agreed(copies: Mapping[int, T]) -> int | None:
    """The first node whose copy more than half of all nodes have alike; None: there is no such copy.

    Args:
        copies: what each consists of, by node.
    """
    for node, copy in sorted(copies.items()):
        if 2 * sum(other == copy for other in copies.values()) > len(copies):
            return node
    return None


def why_not(right: int | None, rows: int, repair: bool) -> str | None:
    """Why a copy that differs is not mended by itself; None: it is.

    Args:
        right: see `agreed`.
        rows: in how many it differs.
        repair: the setting `scrub_repair`.
    """
    if not repair:
        return "scrub_repair is off"
    if right is None:
        return "no more than half of the copies agree, so nobody can say which is right"
    if rows > MOST_ROWS:
        return f"more than {MOST_ROWS} rows differ"
    return None
