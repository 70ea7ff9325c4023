"""The map of a table: which node has which copy of which partition.

A copy is told by its shape, never by its colour alone: a primary is full, a replica is a frame, one that does
not follow is a frame with a stroke through it. The shade is the size, or how much is written or read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from shardman.nodes.status import Row, Status

#: Partitions of a map in a row; the others follow below.
ACROSS = 64
#: Up to so many partitions each copy leads to its page, with its name.
SINGLE = 256
#: Copies that a page of all tables draws one by one, and at all: it has to stay below 200 kB.
SINGLE_COPIES, DRAWN_COPIES = 300, 4500
SHADES = 4


@dataclass(frozen=True)
class Cell:
    """A copy.

    Args:
        x, y: column and row within its block.
        kind: primary, replica or stale.
        shade: 1 … SHADES, by its weight against the largest of the table.
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
    away: frozenset[int]


def table_maps(now: Status, weights: Mapping[str, float]) -> list[TableMap | None]:
    """The maps of all tables. With many copies their squares lead nowhere; those that come last are None, where
    they would make the page large."""
    single = sum(map(_copies, now.partitions)) <= SINGLE_COPIES
    found: list[TableMap | None] = []
    drawn = 0
    for table in now.tables:
        parts = [p for p in now.partitions if p["relation"] == table["relation"]]
        drawn += sum(map(_copies, parts))
        shown = drawn <= DRAWN_COPIES
        found.append(
            _of_parts(now, table["relation"], parts, weights, single=single) if shown else None
        )
    return found


def _copies(part: Row) -> int:
    return 1 + len(part["replicas_on"])


def table_map(now: Status, relation: str, weights: Mapping[str, float]) -> TableMap:
    """The map of a table; nodes are the workers and whoever has copies.

    Args:
        weights: what the shade of a partition tells; what is missing weighs nothing.
    """
    parts = [p for p in now.partitions if p["relation"] == relation]
    single = len(parts) <= SINGLE and sum(map(_copies, parts)) <= 2 * SINGLE_COPIES
    return _of_parts(now, relation, parts, weights, single=single)


def _of_parts(
    now: Status,
    relation: str,
    parts: Sequence[Row],
    weights: Mapping[str, float],
    *,
    single: bool,
) -> TableMap:
    holders = {n for p in parts for n in (p["primary_on"], *p["replicas_on"])}
    nodes = sorted(holders | {n.id for n in now.nodes if "worker" in n.role})
    busy = moving(now)
    heaviest = max((weights.get(p["part_name"], 0.0) for p in parts), default=0.0)
    shades = {p["part_name"]: _shade(weights.get(p["part_name"], 0.0), heaviest) for p in parts}
    blocks = tuple(
        Block(
            at,
            at + len(chunk) - 1,
            tuple(c for x, p in enumerate(chunk) for c in _cells(p, x, nodes, shades, busy)),
        )
        for at, chunk in _chunks(parts)
    )
    away = frozenset(n.id for n in now.nodes if not n.up)
    return TableMap(relation, tuple(nodes), blocks, single, away)


def _shade(weight: float, heaviest: float) -> int:
    return 1 + min(SHADES - 1, int(SHADES * weight / heaviest)) if heaviest else 1


def _chunks(parts: Sequence[Row]) -> Iterable[tuple[int, Sequence[Row]]]:
    for at in range(0, len(parts), ACROSS):
        yield at, parts[at : at + ACROSS]


def _cells(
    part: Row, x: int, nodes: Sequence[int], shades: Mapping[str, int], busy: frozenset[str]
) -> Iterable[Cell]:
    stale = set(part["stale_on"] or ())
    for node in (part["primary_on"], *part["replicas_on"]):
        kind = "primary" if node == part["primary_on"] else "stale" if node in stale else "replica"
        name = part["part_name"]
        yield Cell(name, node, x, nodes.index(node), kind, shades[name], name in busy)


def moving(now: Status) -> frozenset[str]:
    """Partitions that a command which runs names among its arguments."""
    return frozenset(part_of(c) for c in now.commands) & {p["part_name"] for p in now.partitions}


def part_of(command: Row) -> str:
    """The partition that a command names among its arguments; empty where it names none."""
    options = (o.partition("=") for o in (command["opts"] or "").split(", "))
    return next((value for key, _, value in options if key == "part_name"), "")
