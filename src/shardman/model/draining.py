"""Where the copies on a node go when it is to be empty. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from shardman.model.cluster import Cluster, Copy
from shardman.model.placement import Move, natural


def drain(cluster: Cluster, node: int, places: Iterable[int]) -> list[Move]:
    """What leaves a node without copies, in an order in which it can be done.

    A copy moves to the place that has least of its table, in a zone with no other copy of the
    partition where there is one. Where every place has a copy already, a replica is dropped, and a
    primary changes places with a replica first. Only a copy that is the last one, with no place to go,
    stays. Of partitions that go together the first is named.

    Args:
        places: nodes that may take copies; the node itself does not count.
    """
    board = _Board(cluster, node, places)
    held = sorted(
        cluster.copies_on(node), key=lambda c: (c.relation, natural(c.part_name), c.part_name)
    )
    return [move for copy in held if cluster.leads(copy.part_name) for move in board.leave(copy)]


class _Board:
    """Who holds how much, while copies are being handed out."""

    def __init__(self, cluster: Cluster, node: int, places: Iterable[int]) -> None:
        self._cluster = cluster
        self._node = node
        self._places = sorted(set(places) - {node})
        #: By table, whether primary, and node.
        self._held = Counter((c.relation, c.prv is None, c.owner) for c in cluster.copies)
        self._copies = Counter(c.owner for c in cluster.copies)

    def leave(self, copy: Copy) -> list[Move]:
        part, node = copy.part_name, self._node
        if copy.stale_since is not None:
            return [self._drop(part)]
        dest = self._dest(copy)
        if dest is not None:
            self._held[copy.relation, copy.prv is None, dest] += 1
            self._copies[dest] += 1
            via = None if copy.prv is None else self._cluster.primary(part).owner
            return [Move(part, node, dest, via=via)]
        if copy.prv is not None:
            return [self._drop(part)]
        heirs = [r for r in self._cluster.replicas_of(part) if r in self._places]
        if not heirs:
            return []
        heir = min(heirs, key=lambda n: (self._held[copy.relation, True, n], n))
        self._held[copy.relation, True, heir] += 1
        return [
            Move(part, node, heir, kind="switch"),
            Move(part, node, node, kind="drop", via=heir),
        ]

    def _drop(self, part: str) -> Move:
        via = self._cluster.primary(part).owner
        return Move(part, self._node, self._node, kind="drop", via=via)

    def _dest(self, copy: Copy) -> int | None:
        owners = {c.owner for c in self._cluster.copies_of(copy.part_name)}
        zones = self._cluster.zones
        near = Counter(zones[n] for n in owners - {self._node})
        free = [n for n in self._places if n not in owners]
        return min(
            free,
            key=lambda n: (
                near[zones[n]],
                self._held[copy.relation, copy.prv is None, n],
                self._copies[n],
                n,
            ),
            default=None,
        )
