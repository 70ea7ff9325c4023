"""Which nodes see a transaction over several that others have seen, and do not see it themselves."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

_NAME = re.compile(r"[^_]+_[^_]+_[^_]([0-9]{1,9})_[^_]+_[^_]+")

#: By the number of a node: the transactions that its snapshot sees, each with the nodes of its other parts if
#: this is its first node.
Seen = Mapping[int, Mapping[str, Collection[int]]]


def lagging(seen: Seen, void: Collection[str] = ()) -> dict[int, set[str]]:
    """The nodes whose snapshots are older than another's by a transaction, with those that they lack.

    Args:
        void: what is no transaction over several nodes, whatever a row says.
    """
    found: dict[int, set[str]] = {}
    for gid in {g for there in seen.values() for g in there} - set(void):
        first = first_node(gid)
        if first in seen and gid not in seen[first]:
            # It has decided before any other part was committed, and knows where they are.
            found.setdefault(first, set()).add(gid)
            continue
        for node in seen.get(first, {}).get(gid, ()):
            if node in seen and gid not in seen[node]:
                found.setdefault(node, set()).add(gid)
    return found


def first_node(gid: str) -> int:
    """The node that decides on a transaction called shardman_<cluster>_y<node>_<xid>_<random>.

    -1 for a name that is no such one: former versions let anybody write one down.
    """
    found = _NAME.fullmatch(gid)
    return int(found[1]) if found else -1
