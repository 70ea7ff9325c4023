"""Where copies of partitions should lie, and which moves bring them there: pure.

By number the plan is exact: no other set of moves that spreads the copies evenly is smaller. By
bytes it is greedy (the exact answer is a packing problem): each step takes from the fullest node the
copy that closes the gap best. Equal input gives equal output, and an even spread gives no moves.
"""

from __future__ import annotations

import re
from bisect import insort
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from shardman.model.cluster import Copy

Measure = Literal["number", "bytes"]

#: A copy goes to another node; a replica there becomes the primary, and the primary a replica; or a
#: copy is dropped.
Kind = Literal["move", "switch", "drop"]

#: By bytes, nodes that differ by less than this share of the mean count as even: sizes change while
#: we look at them, and a move is never free.
TOLERANCE = 0.05


@dataclass(frozen=True)
class Move:
    """One copy that changes its node, or its place in the succession.

    Args:
        src: where the copy is; of a switch, the primary of now.
        dest: where it is to be; of a switch, the primary to be; of a drop, again ``src``.
        bytes: its size.
        kind: what is done.
        via: the node of its primary, where the copy is a replica.
    """

    part_name: str
    src: int
    dest: int
    bytes: int = 0
    kind: Kind = "move"
    via: int | None = None

    @property
    def nodes(self) -> frozenset[int]:
        """The nodes that take part."""
        via = () if self.via is None else (self.via,)
        return frozenset((self.src, self.dest, *via))


@dataclass(frozen=True)
class Load:
    """What one node holds.

    Args:
        copies: those that are spread, say primaries.
        bytes: of them.
        replicas: copies beside them.
    """

    copies: int = 0
    bytes: int = 0
    replicas: int = 0

    def of(self, measure: Measure) -> int:
        return self.copies if measure == "number" else self.bytes


@dataclass(frozen=True)
class Spread:
    """What every node holds."""

    nodes: Mapping[int, Load]

    def gap(self, measure: Measure) -> int:
        """By how much the fullest node exceeds the emptiest."""
        loads = [load.of(measure) for load in self.nodes.values()]
        return max(loads) - min(loads) if loads else 0


@dataclass(frozen=True)
class Placement:
    """Moves, and the spread without and with them."""

    moves: tuple[Move, ...]
    before: Spread
    after: Spread


def natural(part_name: str) -> tuple[tuple[int, str], ...]:
    """Sorts ``acc_10`` behind ``acc_9``."""
    return tuple(
        (int(piece), "") if piece.isdigit() else (-1, piece)
        for piece in re.split(r"([0-9]+)", part_name)
    )


def ready(moves: Iterable[Move], running: Iterable[Move]) -> list[Move]:
    """The moves that may begin now: in order, none shares a node with one that runs or begins, and of
    one partition none overtakes another."""
    going = list(running)
    busy = {node for move in going for node in move.nodes}
    parts = {move.part_name for move in going}
    chosen: list[Move] = []
    for move in moves:
        if not busy & move.nodes and move.part_name not in parts:
            chosen.append(move)
            busy |= move.nodes
        parts.add(move.part_name)
    return chosen


def spread_of(copies: Iterable[Copy], nodes: Iterable[int], sizes: Mapping[str, int]) -> Spread:
    """What each of the nodes holds; copies elsewhere are left out."""
    held: dict[int, list[int]] = {node: [] for node in nodes}
    for copy in copies:
        if copy.owner in held:
            held[copy.owner].append(sizes.get(copy.part_name, 0))
    return Spread({node: Load(len(sizes_), sum(sizes_)) for node, sizes_ in held.items()})


def even(
    copies: Sequence[Copy],
    nodes: Iterable[int],
    *,
    measure: Measure = "number",
    sizes: Mapping[str, int] | None = None,
    fixed: Iterable[Copy] = (),
    zones: Mapping[int, str] | None = None,
) -> Placement:
    """The moves that spread copies evenly.

    Args:
        copies: those that may be moved and are to be spread, say the primaries of a table.
        nodes: over which they are spread. A copy elsewhere neither moves nor counts.
        measure: what is to be even, the number of copies or their bytes.
        sizes: bytes by partition. By number they do not matter: tables of equally many partitions that
            begin on one node are spread alike, so joins on the key stay on one node.
        fixed: copies that stay where they are; no other copy of their partition goes to their node.
        zones: by node what may fail together. No copy goes to a zone with more other copies of its
            partition than the zone that it is in.
    """
    board = _Board(copies, nodes, sizes or {}, fixed, zones or {})
    before = board.spread()
    if measure == "number":
        _even_by_number(board)
    else:
        _even_by_bytes(board)
    return Placement(board.moves(), before, board.spread())


class _Board:
    """Copies on nodes, while they are being moved about."""

    def __init__(
        self,
        copies: Sequence[Copy],
        nodes: Iterable[int],
        sizes: Mapping[str, int],
        fixed: Iterable[Copy],
        zones: Mapping[int, str],
    ) -> None:
        self.sizes = sizes
        self._zones = zones
        self.nodes = sorted(set(nodes))
        ordered = sorted(copies, key=lambda c: (natural(c.part_name), c.part_name, c.owner))
        self._origin = [c for c in ordered if c.owner in self.nodes]
        self._at = [c.owner for c in self._origin]
        #: Indexes of the copies on each node, in order, and the bytes of them all.
        self._on: dict[int, list[int]] = {node: [] for node in self.nodes}
        for i, at in enumerate(self._at):
            self._on[at].append(i)
        self._bytes = {node: sum(map(self.bytes_of, self._on[node])) for node in self.nodes}
        # A copy that cannot move still forbids its node to its siblings.
        stuck = (*fixed, *(c for c in ordered if c.owner not in self.nodes))
        self._fixed = {(c.part_name, c.owner) for c in stuck}
        self._places = {(c.part_name, c.owner) for c in self._origin} | self._fixed
        self._near = Counter((part, self._zone(node)) for part, node in self._places)

    def _zone(self, node: int) -> str:
        return self._zones.get(node, f"node {node}")

    def on(self, node: int) -> list[int]:
        """Indexes of the copies on a node."""
        return self._on[node]

    def bytes_of(self, index: int) -> int:
        return self.sizes.get(self._origin[index].part_name, 0)

    def load(self, node: int) -> Load:
        return Load(len(self._on[node]), self._bytes[node])

    def spread(self) -> Spread:
        return Spread({node: self.load(node) for node in self.nodes})

    def movable(self, src: int, dest: int) -> Iterator[int]:
        """Copies on src that dest may have, in the order of their numbers."""
        return (i for i in self.on(src) if self._may(self._origin[i].part_name, src, dest))

    def _may(self, part: str, src: int, dest: int) -> bool:
        """No copy of the partition is there, nor more of them near by than where this one is."""
        here, there = self._zone(src), self._zone(dest)
        return (part, dest) not in self._places and (
            here == there or self._near[part, there] <= self._near[part, here] - 1
        )

    def move(self, index: int, dest: int) -> None:
        part, src = self._origin[index].part_name, self._at[index]
        self._places.discard((part, src))
        self._places.add((part, dest))
        self._near[part, self._zone(src)] -= 1
        self._near[part, self._zone(dest)] += 1
        self._at[index] = dest
        self._on[src].remove(index)
        insort(self._on[dest], index)
        self._bytes[src] -= self.bytes_of(index)
        self._bytes[dest] += self.bytes_of(index)

    def moves(self) -> tuple[Move, ...]:
        """From where each copy was to where it is now."""
        return tuple(
            Move(copy.part_name, copy.owner, at, self.bytes_of(i))
            for i, (copy, at) in enumerate(zip(self._origin, self._at, strict=True))
            if copy.owner != at
        )


def _even_by_number(board: _Board) -> None:
    """Surplus to deficit, the nodes that hold most keep the odd copy: every move is needed."""
    held = {node: board.load(node).copies for node in board.nodes}
    share, odd = divmod(sum(held.values()), len(held) or 1)
    fullest = sorted(board.nodes, key=lambda n: (-held[n], n))
    want = {node: share + (place < odd) for place, node in enumerate(fullest)}
    while (found := _step_by_number(board, held, want) or _step_by_gap(board, held)) is not None:
        index, src, dest = found
        board.move(index, dest)
        held[src] -= 1
        held[dest] += 1


def _step_by_number(
    board: _Board, held: Mapping[int, int], want: Mapping[int, int]
) -> tuple[int, int, int] | None:
    givers = sorted(board.nodes, key=lambda n: (want[n] - held[n], n))
    takers = sorted(board.nodes, key=lambda n: (held[n] - want[n], n))
    for src in (n for n in givers if held[n] > want[n]):
        for dest in (n for n in takers if held[n] < want[n]):
            if (can := next(board.movable(src, dest), None)) is not None:
                return can, src, dest
    return None


def _step_by_gap(board: _Board, held: Mapping[int, int]) -> tuple[int, int, int] | None:
    """Where siblings and zones forbid the exact answer: the step that closes the widest gap."""
    pairs = sorted(
        ((held[s] - held[d], s, d) for s in board.nodes for d in board.nodes),
        key=lambda pair: (-pair[0], pair[1], pair[2]),
    )
    for gap, src, dest in pairs:
        if gap < 2:
            return None
        if (can := next(board.movable(src, dest), None)) is not None:
            return can, src, dest
    return None


def _even_by_bytes(board: _Board) -> None:
    """From the fullest to the emptiest, what comes closest to half their difference.

    Every move lowers the sum of the squares of the loads, so this ends.
    """
    while (found := _step_by_bytes(board)) is not None:
        board.move(*found)


def _step_by_bytes(board: _Board) -> tuple[int, int] | None:
    loads = {node: board.load(node).bytes for node in board.nodes}
    if not loads:
        return None
    enough = sum(loads.values()) / len(loads) * TOLERANCE
    src = min(loads, key=lambda n: (-loads[n], n))
    for dest in sorted(loads, key=lambda n: (loads[n], n)):
        gap = loads[src] - loads[dest]
        if gap <= enough:
            return None
        helps = [i for i in board.movable(src, dest) if 0 < board.bytes_of(i) < gap]
        if helps:
            return _closest_to_half(board, helps, gap), dest
    return None


def _closest_to_half(board: _Board, indexes: list[int], gap: int) -> int:
    return min(indexes, key=lambda i: (abs(2 * board.bytes_of(i) - gap), i))
