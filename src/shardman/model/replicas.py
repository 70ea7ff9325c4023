"""Where replicas go: evenly spread, in different zones where they can, never two copies of a partition
on one node. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from shardman.model.cluster import Cluster
from shardman.model.placement import natural


@dataclass(frozen=True)
class Change:
    """A replica to make (``add``), which may be an old one to bring up to date, or to drop."""

    part_name: str
    node: int
    add: bool


def changes(
    cluster: Cluster, relation: str, level: int, nodes: Iterable[int], alive: Iterable[int]
) -> list[Change]:
    """What brings every partition of a table to a number of replicas.

    Args:
        level: replicas beside the primary that follow it. One that does not is brought up to date
            before a new one is made, and dropped where there are enough.
        nodes: which may take replicas; others keep those they have.
        alive: which answer. Where the primary's does not nothing is changed: there is nothing to copy
            from, and a replica may be the last copy that there is.

    Returns:
        In the order of the partitions. Fewer than needed where the nodes do not allow more.
    """
    board = _Board(cluster, relation, nodes)
    there = set(alive)
    parts = sorted(
        (
            c.part_name
            for c in cluster.primaries.values()
            if c.relation == relation and c.owner in there
        ),
        key=lambda p: (natural(p), p),
    )
    return [change for part in parts for change in board.bring(part, level)]


class _Board:
    """Who holds how much, while replicas are being handed out."""

    def __init__(self, cluster: Cluster, relation: str, nodes: Iterable[int]) -> None:
        self._cluster = cluster
        self._nodes = sorted(nodes)
        self._zones = cluster.zones
        mine = [c for c in cluster.copies if c.relation == relation]
        self._replicas = Counter(c.owner for c in mine if c.prv is not None)
        self._copies = Counter(c.owner for c in cluster.copies)
        #: Replicas of one node's primaries on another: spread, they share a dead node's load.
        self._links = Counter(
            (cluster.primaries[c.part_name].owner, c.owner)
            for c in mine
            if c.prv is not None and c.part_name in cluster.primaries
        )

    def bring(self, part: str, level: int) -> list[Change]:
        held = list(self._cluster.replicas_of(part))
        stale = list(self._cluster.stale_replicas_of(part))
        made: list[Change] = []
        primary = self._cluster.primary(part).owner
        while len(held) > level:
            held.remove(gone := self._least(primary, held))
            made.append(self._drop(part, gone))
        while len(held) < level:
            free = [n for n in self._nodes if n != primary and n not in held]
            if not free:
                return made
            node = self._best(primary, held, stale, free)
            held.append(node)
            made.append(self._add(part, primary, node))
        return made + [self._drop(part, n) for n in stale if n not in held]

    def _best(self, primary: int, held: list[int], stale: list[int], free: list[int]) -> int:
        """Another zone before all else, then an old copy, then an even spread."""
        near = Counter(self._zones[n] for n in (primary, *held))
        return min(
            free, key=lambda n: (near[self._zones[n]], n not in stale, *self._weight(primary, n))
        )

    def _least(self, primary: int, held: list[int]) -> int:
        """The replica that is missed least: one in a zone with another copy, else the last."""
        near = Counter(self._zones[n] for n in (primary, *held))
        return max(reversed(held), key=lambda n: near[self._zones[n]])

    def _weight(self, primary: int, node: int) -> tuple[int, int, int, int]:
        return (
            self._replicas[node],
            self._links[primary, node],
            self._copies[node],
            node,
        )

    def _add(self, part: str, primary: int, node: int) -> Change:
        self._replicas[node] += 1
        self._copies[node] += 1
        self._links[primary, node] += 1
        return Change(part, node, add=True)

    def _drop(self, part: str, node: int) -> Change:
        self._replicas[node] -= 1
        self._copies[node] -= 1
        return Change(part, node, add=False)
