"""Whether tables and copies look the same on every node: columns, indexes, triggers, rights … No I/O.

A node's view of itself is `shardman.shapes()`; here those of all nodes are compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from shardman.model.finding import Finding

#: What to do about what differs.
_IN_LINE = "Bring them in line there alone: shardman exec --nodes and the node"
_SYNC = (
    "shardman sync-roles --role {0} makes it on all nodes what it is on the lord's server, with --node what it "
    "is on that node's; superusers by hand, with ALTER ROLE there"
)
#: Of one kind of object, what it consists of.
Items = tuple[str, ...]


@dataclass(frozen=True)
class Shape:
    """One aspect of things that look the same on one node.

    Args:
        relation: the table that they belong to.
        kind: ``table``; ``copy`` for data tables; ``object`` for a view, a function or a type that is
            the same on all nodes that have it; ``role`` for a role that uses the cluster's tables.
        aspect: columns, constraints, indexes, …
        items: what there is of it.
        names: of the table, or of the partitions.
    """

    relation: str
    kind: str
    aspect: str
    items: Items
    names: tuple[str, ...]


def differences(
    shapes: Mapping[int, Sequence[Shape]],
    primaries: Mapping[str, int],
    busy: Collection[str] = frozenset(),
) -> Iterator[Finding]:
    """Tables that differ between nodes, primaries that differ from most of their table, and replicas that
    differ from their primary.

    Args:
        shapes: by node.
        primaries: the node of each partition's primary.
        busy: relations and partitions that a running command changes.
    """
    tables: dict[tuple[str, str], dict[str, dict[int, Items]]] = {}
    copies: dict[tuple[str, str], dict[str, dict[int, Items]]] = {}
    # Their names begin with the word, which no table's does.
    roles = {s.relation for found in shapes.values() for s in found if s.kind == "role"}
    for node, found in shapes.items():
        for shape in found:
            if shape.relation in busy:
                continue
            kind = copies if shape.kind == "copy" else tables
            named = kind.setdefault((shape.relation, shape.aspect), {})
            for name in shape.names:
                named.setdefault(name, {})[node] = shape.items
    for (_, aspect), named in sorted(tables.items()):
        for name, on in named.items():
            yield from _tables(name, aspect, on, _SYNC if name in roles else _IN_LINE)
    for (_, aspect), named in sorted(copies.items()):
        yield from _copies(aspect, named, primaries, busy)


def _tables(relation: str, aspect: str, on: Mapping[int, Items], remedy: str) -> Iterator[Finding]:
    usual = Counter(on.values()).most_common(1)[0][0]
    for node, items in sorted(on.items()):
        if items != usual:
            yield Finding(
                f"{relation} on node {node}",
                f"its {aspect} differ from those of most nodes: {_apart(items, usual)}",
                remedy.format(relation.removeprefix("role ")),
            )


def _copies(
    aspect: str,
    named: Mapping[str, Mapping[int, Items]],
    primaries: Mapping[str, int],
    busy: Collection[str],
) -> Iterator[Finding]:
    parts = {p: on for p, on in named.items() if p not in busy}
    truths = {p: on[primaries[p]] for p, on in parts.items() if primaries.get(p) in on}
    if not truths:
        return
    usual = Counter(truths.values()).most_common(1)[0][0]
    for part, truth in sorted(truths.items()):
        if truth != usual:
            yield Finding(
                f"{part} on node {primaries[part]}",
                f"the primary's {aspect} differ from those of most partitions: {_apart(truth, usual)}",
                _remedy(part, aspect, truth, usual),
            )
        for node, items in sorted(parts[part].items()):
            if node != primaries[part] and items != truth:
                yield Finding(
                    f"{part} on node {node}",
                    f"the replica's {aspect} differ from the primary's: {_apart(items, truth)}",
                    _remedy(part, aspect, items, truth),
                )


def _remedy(part: str, aspect: str, here: Items, wanted: Items) -> str:
    """What to do about a copy; for an index that is missing, the statement."""
    table = part[:-1] + '_data"' if part.endswith('"') else part + "_data"
    lacks = [item for item in wanted if item not in here]
    if aspect == "indexes" and lacks and not set(here) - set(wanted):
        made = "; ".join(i.replace("index ", f"index on {table} ", 1) for i in lacks)
        return f"On that node: set shardman.ddl = 'here'; create {made}"
    return f"Change {table} on that node, after set shardman.ddl = 'here'"


def _apart(here: Items, there: Items) -> str:
    """In what one list differs from the other; an item may be there twice."""
    lacks = sorted((Counter(there) - Counter(here)).elements())
    more = sorted((Counter(here) - Counter(there)).elements())
    return "; ".join(
        [f"lacks {', '.join(lacks)}"] * bool(lacks) + [f"has {', '.join(more)}"] * bool(more)
    )
