"""The map of a table: which node has which copy of which partition.

A copy is told by its shape, never by its colour alone: a primary is full, a replica is a frame, one that does
not follow is a frame with a stroke through it. The shade is the size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shardman.nodes.status import Row, Status

#: Partitions of a map in a row; the others follow below.
ACROSS = 64
#: Up to so many partitions each copy leads to its page, with its name.
SINGLE = 256
SHADES = 4


@dataclass(frozen=True)
class Cell:
    """A copy.

    Args:
        x, y: column and row within its block.
        kind: primary, replica or stale.
        shade: 1 … SHADES, by its size against the largest of the table.
        moving: a command that runs is about this partition.
    """

    part: str
    node: int
    x: int
    y: int
    kind: str
    shade: int
    moving: bool


@dataclass(frozen=True)
class Block:
    """Up to ACROSS partitions; rows are nodes."""

    first: int
    last: int
    cells: tuple[Cell, ...]

    def path(self, kind: str, shade: int, size: int = 10) -> str:
        """The squares of all copies of a kind and a shade, as one SVG path."""
        side = size - 2
        return "".join(
            f"M{c.x * size + 1} {c.y * size + 1}h{side}v{side}h-{side}z"
            + (f"l{side} {side}" if kind == "stale" else "")
            for c in self.cells
            if (c.kind, c.shade) == (kind, shade)
        )


@dataclass(frozen=True)
class TableMap:
    """All of a table."""

    relation: str
    nodes: tuple[int, ...]
    blocks: tuple[Block, ...]
    single: bool


def table_map(now: Status, relation: str) -> TableMap:
    """The map of a table; nodes are the workers and whoever has copies."""
    parts = [p for p in now.partitions if p["relation"] == relation]
    holders = {n for p in parts for n in (p["primary_on"], *p["replicas_on"])}
    nodes = sorted(holders | {n.id for n in now.nodes if "worker" in n.role})
    busy = moving(now)
    largest = max((p["bytes"] or 0 for p in parts), default=0)
    blocks = tuple(
        Block(
            at,
            at + len(chunk) - 1,
            tuple(c for x, p in enumerate(chunk) for c in _cells(p, x, nodes, largest, busy)),
        )
        for at, chunk in _chunks(parts)
    )
    return TableMap(relation, tuple(nodes), blocks, len(parts) <= SINGLE)


def _chunks(parts: Sequence[Row]) -> Iterable[tuple[int, Sequence[Row]]]:
    for at in range(0, len(parts), ACROSS):
        yield at, parts[at : at + ACROSS]


def _cells(
    part: Row, x: int, nodes: Sequence[int], largest: int, busy: frozenset[str]
) -> Iterable[Cell]:
    size = part["bytes"] or 0
    shade = 1 + min(SHADES - 1, SHADES * size // largest) if largest else 1
    stale = set(part["stale_on"] or ())
    for node in (part["primary_on"], *part["replicas_on"]):
        kind = "primary" if node == part["primary_on"] else "stale" if node in stale else "replica"
        name = part["part_name"]
        yield Cell(name, node, x, nodes.index(node), kind, shade, name in busy)


def moving(now: Status) -> frozenset[str]:
    """Partitions that a command which runs names among its arguments."""
    named = {
        value
        for c in now.commands
        for key, _, value in (o.partition("=") for o in (c["opts"] or "").split(", "))
        if key == "part_name"
    }
    return frozenset(named & {p["part_name"] for p in now.partitions})
