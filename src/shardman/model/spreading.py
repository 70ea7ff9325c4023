"""Which moves and switches spread all copies of a table evenly. No I/O.

Primaries come first, for they do the work: where a node with fewer of them has a replica, the two
change places and nothing is copied. What is left moves. Then replicas that share a zone with another
copy of their partition go to one of their own where there is one, and at last replicas are evened out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from shardman.model.cluster import Cluster, Copy
from shardman.model.placement import (
    TOLERANCE,
    Measure,
    Move,
    Placement,
    Spread,
    even,
    natural,
    spread_of,
)

#: A replica that moved may have been in the way of a primary: a second round finds that. More than a
#: few are never needed.
STAGES = 5


def spread_out(
    cluster: Cluster,
    relation: str,
    nodes: Iterable[int],
    measure: Measure = "number",
    sizes: Mapping[str, int] | None = None,
) -> Placement:
    """The moves and switches of a table's copies, in an order in which they can be done.

    Args:
        nodes: over which the copies are spread; what lies elsewhere stays, and so does a replica
            that does not follow its primary.
        measure: what is to be even.
        sizes: bytes by partition.
    """
    return _Spreading(cluster, relation, nodes, measure, sizes or {}).placement()


class _Spreading:
    """The copies while they are being moved about."""

    def __init__(
        self,
        cluster: Cluster,
        relation: str,
        nodes: Iterable[int],
        measure: Measure,
        sizes: Mapping[str, int],
    ) -> None:
        self._nodes = sorted(nodes)
        self._measure: Measure = measure
        self._sizes = sizes
        self._zones = cluster.zones
        mine = sorted(
            (p for p, c in cluster.primaries.items() if c.relation == relation),
            key=lambda p: (natural(p), p),
        )
        self._relation = relation
        self._primary = {part: cluster.primary(part).owner for part in mine}
        self._replicas = {part: set(cluster.replicas_of(part)) for part in mine}
        self._stale = {part: set(cluster.stale_replicas_of(part)) for part in mine}
        self._held = Counter(n for nodes in self._replicas.values() for n in nodes)
        #: Partitions by the nodes of their primary and of a replica, in the order of their names.
        self._pairs: defaultdict[tuple[int, int], dict[str, None]] = defaultdict(dict)
        for part in mine:
            self._pair(part)
        self._moves: list[Move] = []

    def placement(self) -> Placement:
        before = self._spread()
        for _ in range(STAGES):
            planned = len(self._moves)
            self._switch()
            self._move_primaries()
            self._separate()
            self._move_replicas()
            if len(self._moves) == planned:
                break
        return Placement(tuple(self._moves), before, self._spread())

    def _pair(self, part: str) -> None:
        for node in self._replicas[part]:
            self._pairs[self._primary[part], node][part] = None

    def _unpair(self, part: str) -> None:
        for node in self._replicas[part]:
            del self._pairs[self._primary[part], node][part]

    # -- the state ------------------------------------------------------------------------------

    def _primaries(self) -> list[Copy]:
        return [Copy(p, n, None, None, self._relation) for p, n in self._primary.items()]

    def _others(self, held: Mapping[str, set[int]]) -> list[Copy]:
        return [
            Copy(p, n, self._primary[p], None, self._relation)
            for p, nodes in held.items()
            for n in sorted(nodes)
        ]

    def _spread(self) -> Spread:
        loads = spread_of(self._primaries(), self._nodes, self._sizes).nodes
        held = self._held + Counter(n for nodes in self._stale.values() for n in nodes)
        return Spread({n: replace(load, replicas=held[n]) for n, load in loads.items()})

    def _note(self, move: Move) -> None:
        self._moves.append(replace(move, bytes=self._sizes.get(move.part_name, 0)))

    # -- primaries ------------------------------------------------------------------------------

    def _weight(self, part: str) -> int:
        return 1 if self._measure == "number" else self._sizes.get(part, 0)

    def _loads(self) -> dict[int, int]:
        loads = dict.fromkeys(self._nodes, 0)
        for part, node in self._primary.items():
            if node in loads:
                loads[node] += self._weight(part)
        return loads

    def _switch(self) -> None:
        """Each switch lowers the sum of the squares of the loads, so this ends."""
        while (found := self._next_switch()) is not None:
            part, src, dest = found
            self._unpair(part)
            self._primary[part] = dest
            self._replicas[part] = self._replicas[part] - {dest} | {src}
            self._held.update({src: 1, dest: -1})
            self._pair(part)
            self._note(Move(part, src, dest, kind="switch"))

    def _next_switch(self) -> tuple[str, int, int] | None:
        """What comes closest to half the difference of the two nodes that differ most."""
        loads = self._loads()
        mean = sum(loads.values()) / (len(loads) or 1)
        enough = 1 if self._measure == "number" else mean * TOLERANCE
        pairs = sorted(
            ((loads[s] - loads[d], s, d) for s in loads for d in loads),
            key=lambda pair: (-pair[0], pair[1], pair[2]),
        )
        for gap, src, dest in pairs:
            if gap <= enough:
                return None
            helps = [p for p in self._pairs[src, dest] if 0 < self._weight(p) < gap]
            if helps:
                return min(helps, key=lambda p: abs(2 * self._weight(p) - gap)), src, dest
        return None

    def _move_primaries(self) -> None:
        placed = even(
            self._primaries(),
            self._nodes,
            measure=self._measure,
            sizes=self._sizes,
            fixed=self._others(self._replicas) + self._others(self._stale),
            zones=self._zones,
        )
        for move in placed.moves:
            self._unpair(move.part_name)
            self._primary[move.part_name] = move.dest
            self._pair(move.part_name)
            self._note(move)

    # -- replicas -------------------------------------------------------------------------------

    def _separate(self) -> None:
        """Copies of a partition go to different zones where they can."""
        for part in self._primary:
            for node in sorted(self._replicas[part]):
                others = self._holders(part) - {node}
                taken = {self._zones[n] for n in others}
                if self._zones[node] not in taken or node not in self._nodes:
                    continue
                free = [n for n in self._nodes if n not in others and self._zones[n] not in taken]
                if free:
                    dest = min(free, key=lambda n: (self._held[n], n))
                    self._move_replica(part, node, dest)

    def _holders(self, part: str) -> set[int]:
        return {self._primary[part]} | self._replicas[part] | self._stale[part]

    def _move_replica(self, part: str, src: int, dest: int) -> None:
        self._unpair(part)
        self._replicas[part] = self._replicas[part] - {src} | {dest}
        self._pair(part)
        self._held.update({src: -1, dest: 1})
        self._note(Move(part, src, dest, via=self._primary[part]))

    def _move_replicas(self) -> None:
        placed = even(
            self._others(self._replicas),
            self._nodes,
            measure=self._measure,
            sizes=self._sizes,
            fixed=self._primaries() + self._others(self._stale),
            zones=self._zones,
        )
        by_part: dict[str, list[Move]] = {}
        for move in placed.moves:
            by_part.setdefault(move.part_name, []).append(move)
        for part, mine in by_part.items():
            # Replicas of one partition are alike: none has to make room for another.
            gone = {m.src for m in mine} - {m.dest for m in mine}
            new = {m.dest for m in mine} - {m.src for m in mine}
            for src, dest in zip(sorted(gone), sorted(new), strict=True):
                self._move_replica(part, src, dest)
