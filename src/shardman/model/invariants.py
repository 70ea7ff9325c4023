"""What must hold in a cluster at rest, judged from pictures of its nodes. No I/O.

`shardman.nodes.invariants` takes the pictures; the functions here say what is wrong with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from shardman.model.cluster import Cluster, Copy, Table
from shardman.model.finding import Finding
from shardman.model.shapes import Shape, differences

LORD_NODE = 0
_PART = re.compile(r'"(?:[^"]|"")*"|[^".]+')
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*\Z")


@dataclass(frozen=True)
class Placed:
    """What one node has of one partition.

    Args:
        partition: whether the partition is there.
        attached: the partition's children by name, ``data`` for our data table, ``route`` for our route.
        server: the foreign server of the route.
        leads_to: the node whose server that is; None for one that a command has made.
        data: whether a data table of the partition's name is there, attached or not.
    """

    partition: bool
    attached: tuple[str, ...]
    server: str | None
    leads_to: int | None
    data: bool


@dataclass(frozen=True)
class Range:
    """The numbers that a sequence gives on one node."""

    sequence: str
    low: int
    high: int


@dataclass(frozen=True)
class Picture:
    """One node as it was found.

    Args:
        digests: a hash of the content of each replicated table.
        placed: by partition.
        ranges: of the sequences of sharded tables.
        missing_sequences: those that metadata knows and the node has not.
        faults: what the node itself says is wrong: drift, leftovers, channels.
        shapes: what its tables and copies look like.
    """

    node: int
    digests: Mapping[str, str] = field(default_factory=dict)
    placed: Mapping[str, Placed] = field(default_factory=dict)
    ranges: tuple[Range, ...] = ()
    missing_sequences: tuple[str, ...] = ()
    faults: tuple[Finding, ...] = ()
    shapes: tuple[Shape, ...] = ()


def judge(
    cluster: Cluster, pictures: Iterable[Picture], busy: frozenset[str] = frozenset()
) -> Iterator[Finding]:
    """Everything that is wrong.

    Args:
        cluster: the lord's metadata.
        pictures: of the nodes that could be asked.
        busy: relations and partitions that a running command is changing; where their data lie is
            that command's business.
    """
    pictures = tuple(pictures)
    copies = _by_part(cluster)
    yield from metadata_of_its_own(cluster, copies)
    yield from metadata_differs(pictures)
    for picture in pictures:
        yield from picture.faults
        yield from placement(copies, picture, busy)
    yield from sequences(pictures)
    yield from differences(
        {p.node: p.shapes for p in pictures},
        {part: c.owner for part, c in cluster.primaries.items()},
        busy,
    )


Copies = Mapping[str, Sequence[Copy]]


def _by_part(cluster: Cluster) -> Copies:
    copies: dict[str, list[Copy]] = {}
    for copy in cluster.copies:
        copies.setdefault(copy.part_name, []).append(copy)
    return copies


def partition_names(table: Table) -> Iterator[str]:
    """The names of a table's partitions, as the metadata writes them."""
    schema, dot, _ = table.relation.rpartition(_last(table.relation))[0].rpartition(".")
    last = _last(table.relation)
    name = last[1:-1].replace('""', '"') if last.startswith('"') else last
    for k in range(table.partitions_count):
        part = f"{name}_{k}"
        yield schema + dot + (part if _PLAIN.match(part) else '"' + part.replace('"', '""') + '"')


def _last(relation: str) -> str:
    """The last part of a relation's name, with its quotes."""
    return str(_PART.findall(relation)[-1])


def metadata_of_its_own(cluster: Cluster, copies: Copies) -> Iterator[Finding]:
    """Each partition has one primary on an active worker, and its copies form one list."""
    for table in cluster.tables.values():
        for part in partition_names(table):
            yield from _succession(cluster, part, copies.get(part, ()))
    yield from apart(cluster)


def apart(cluster: Cluster) -> Iterator[Finding]:
    """Partitions that go together have their copies on the same nodes, in one order, and follow together."""
    for part, primary in cluster.primaries.items():
        first, *beside = cluster.rank(part)
        if part != first:
            continue
        for other in beside:
            if _lie(cluster, first) != _lie(cluster, other):
                yield Finding(
                    other,
                    f"is not where {first} is, though {primary.relation} is colocated with its table",
                    "Report this: they go together in each command",
                )
    for relation, table in cluster.tables.items():
        for referred in sorted(table.inside - set(cluster.group(relation))):
            yield Finding(relation, f"refers to {referred}, which is not colocated with it")


def _lie(cluster: Cluster, part: str) -> list[tuple[int, bool]]:
    return [(c.owner, c.stale_since is None) for c in cluster.succession(part)]


def _succession(cluster: Cluster, part: str, copies: Sequence[Copy]) -> Iterator[Finding]:
    primaries = [c for c in copies if c.prv is None]
    if len(primaries) != 1:
        yield Finding(part, f"has {len(primaries)} primaries in the metadata, one is needed")
        return
    by_owner = {c.owner: c for c in copies}
    seen, at = [primaries[0].owner], primaries[0].nxt
    while at is not None and at in by_owner and at not in seen:
        if by_owner[at].prv != seen[-1]:
            break
        seen.append(at)
        at = by_owner[at].nxt
    if at is not None or len(seen) != len(copies):
        yield Finding(part, "prv and nxt of its copies do not form one list")
    for owner in by_owner:
        node = cluster.nodes.get(owner)
        if node is None or not node.is_active_worker:
            yield Finding(
                part,
                f"lies on node {owner}, which is no active worker",
                "Its rows cannot be reached; bring them back from a backup or from that server",
            )


def metadata_differs(pictures: tuple[Picture, ...]) -> Iterator[Finding]:
    """Every node's metadata is the lord's."""
    truth = next((p.digests for p in pictures if p.node == LORD_NODE), None)
    if truth is None:
        return
    for picture in pictures:
        wrong = [name for name, digest in truth.items() if picture.digests.get(name) != digest]
        if wrong:
            yield Finding(
                f"node {picture.node}",
                f"its copy of the metadata differs from the lord's: {', '.join(sorted(wrong))}",
                "It may only be behind; if it stays so, see its subscription in shardman status",
            )


def placement(copies: Copies, picture: Picture, busy: frozenset[str]) -> Iterator[Finding]:
    """The data table is attached on the primary's node only; elsewhere is a route to it."""
    for part, all_copies in copies.items():
        primary = next((c for c in all_copies if c.prv is None), None)
        if primary is None or part in busy or primary.relation in busy:
            continue
        placed = picture.placed.get(part)
        here = f"{part} on node {picture.node}"
        if placed is None or not placed.partition:
            yield Finding(
                here, "the partition is missing", "select shardman.reconcile() on that node"
            )
        elif primary.owner == picture.node:
            yield from _primary_here(here, placed)
        else:
            yield from _route_here(here, placed, primary.owner)
            replica = any(c.owner == picture.node for c in all_copies)
            if placed.data and not replica:
                yield Finding(here, "there is a data table, and no copy belongs here")
            elif replica and not placed.data:
                yield Finding(here, "the replica's data table is missing")


def _primary_here(here: str, placed: Placed) -> Iterator[Finding]:
    if not placed.data:
        yield Finding(here, "the primary's data table is missing")
    elif placed.attached != ("data",):
        yield Finding(
            here,
            f"the partition must have its data table attached, it has {_list(placed.attached)}",
        )


def _route_here(here: str, placed: Placed, owner: int) -> Iterator[Finding]:
    if placed.attached != ("route",):
        yield Finding(
            here, f"the partition must have its route attached, it has {_list(placed.attached)}"
        )
    elif placed.leads_to != owner:
        yield Finding(
            here,
            f"the route leads to {placed.server}, the primary is on node {owner}",
            "select shardman.reconcile() on that node",
        )


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "nothing"


def sequences(pictures: tuple[Picture, ...]) -> Iterator[Finding]:
    """No two nodes can give the same number."""
    ranges: dict[str, list[tuple[int, int, int]]] = {}
    for picture in pictures:
        for name in picture.missing_sequences:
            yield Finding(f"{name} on node {picture.node}", "the sequence is missing")
        for each in picture.ranges:
            ranges.setdefault(each.sequence, []).append((each.low, each.high, picture.node))
    for name, found in ranges.items():
        for one, other in pairwise(sorted(found)):
            if one[1] >= other[0]:
                yield Finding(name, f"its ranges on nodes {one[2]} and {other[2]} overlap")
