"""The metadata of a cluster as one immutable value, read in one transaction."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, TypeVar

from shardman.errors import Code, UserError
from shardman.model.plan import Json

K = TypeVar("K", bound=Hashable)
#: The number of a partition, behind its table's name.
_NUMBER = re.compile(r'_([0-9]+)"?\Z')
#: Of a query: columns by name.
Rows = Iterable[Mapping[str, Any]]


@dataclass(frozen=True)
class Node:
    """A member of the cluster. ``status`` is None on a lord that is not a worker.

    Args:
        zone: what may fail together with other nodes of that name; None: with no other.
        draining: nothing new is placed on it.
        system_id: of its server; databases of one server fail together.
        maintained: its absence is planned: its partitions stay its own, commits do not wait for its replicas,
            and none of these is promoted.
    """

    id: int
    connstring: str
    status: str | None
    lord: bool = False
    zone: str | None = None
    draining: bool = False
    system_id: str | None = None
    maintained: bool = False

    @property
    def zone_name(self) -> str:
        """What it may fail together with; different for nodes that have nothing in common."""
        if self.zone:
            return f"zone {self.zone}"
        return f"server {self.system_id}" if self.system_id else f"node {self.id}"

    @property
    def is_active_worker(self) -> bool:
        return self.status == "active"


@dataclass(frozen=True)
class Table:
    """A sharded table.

    Args:
        replevel: replicas that each partition is to have.
        sync: whether a commit waits for all of them.
        colocation: the group of tables whose partitions of one number lie together; None: it is alone.
    """

    relation: str
    expr: str
    partitions_count: int
    initial_node: int
    definition: Mapping[str, Json] = field(default_factory=dict)
    replevel: int = 0
    sync: bool = True
    colocation: int | None = None

    @property
    def inside(self) -> frozenset[str]:
        """The tables of its group that its foreign keys refer to."""
        keys: Any = self.definition.get("foreign_keys") or ()
        return frozenset(key["to"] for key in keys if "to_columns" in key)

    @property
    def refers(self) -> frozenset[str]:
        """The tables that its foreign keys refer to."""
        keys: Any = self.definition.get("foreign_keys") or ()
        return frozenset(key["to"] for key in keys)


@dataclass(frozen=True)
class Copy:
    """One copy of a partition. ``prv`` is None on the primary.

    Args:
        stale_since: since when a replica has not followed its primary; None for one that does.
    """

    part_name: str
    owner: int
    prv: int | None
    nxt: int | None
    relation: str
    stale_since: datetime | None = None


@dataclass(frozen=True)
class Shared:
    """A shared table.

    Args:
        refers: the shared tables that its foreign keys refer to.
        nodes: the workers that have copies, by id.
    """

    relation: str
    refers: tuple[str, ...] = ()
    nodes: tuple[int, ...] = ()


def number_of(part_name: str) -> int:
    """k of the partition acc_k.

    Raises:
        ValueError: it is not called as partitions are.
    """
    found = _NUMBER.search(part_name)
    if found is None:
        raise ValueError(part_name)
    return int(found[1])


def _shared(relation: str, refers: Iterable[str], nodes: Iterable[int]) -> Shared:
    return Shared(relation, tuple(refers), tuple(nodes))


def _copy(*, stale_since: str | None, **columns: Any) -> Copy:
    """Of a row in JSON, where a time is text."""
    if stale_since is None:
        return Copy(**columns)
    return Copy(**columns, stale_since=datetime.fromisoformat(stale_since).astimezone(UTC))


def _grouped(copies: Iterable[Copy], key: Callable[[Copy], K]) -> dict[K, tuple[Copy, ...]]:
    found: dict[K, list[Copy]] = {}
    for copy in copies:
        found.setdefault(key(copy), []).append(copy)
    return {k: tuple(each) for k, each in found.items()}


@dataclass(frozen=True)
class Cluster:
    """Everything the lord knows, at one instant.

    Args:
        id: the six characters that stand in the names of this cluster's objects.
        nodes: by id, removed ones included.
        tables: by relation.
        copies: every copy of every partition.
        sizes: bytes of a partition's primary, where they were asked for.
        shared: the shared tables, by relation.
    """

    id: str
    nodes: Mapping[int, Node]
    tables: Mapping[str, Table]
    copies: tuple[Copy, ...]
    sizes: Mapping[str, int] = field(default_factory=dict)
    shared: Mapping[str, Shared] = field(default_factory=dict)

    @classmethod
    def of_rows(
        cls, cluster_id: str, nodes: Rows, tables: Rows, copies: Rows, shared: Rows = ()
    ) -> Cluster:
        """As ``sql/queries/cluster.sql`` reads it, out of JSON."""
        return cls(
            cluster_id,
            {node.id: node for node in (Node(**row) for row in nodes)},
            {table.relation: table for table in (Table(**row) for row in tables)},
            tuple(_copy(**row) for row in copies),
            shared={row["relation"]: _shared(**row) for row in shared},
        )

    @cached_property
    def primaries(self) -> Mapping[str, Copy]:
        """The primary copy of each partition, by partition name."""
        return {c.part_name: c for c in self.copies if c.prv is None}

    @cached_property
    def _by_part(self) -> Mapping[str, tuple[Copy, ...]]:
        return _grouped(self.copies, lambda c: c.part_name)

    @cached_property
    def _by_owner(self) -> Mapping[int, tuple[Copy, ...]]:
        return _grouped(self.copies, lambda c: c.owner)

    @cached_property
    def _groups(self) -> Mapping[int, tuple[str, ...]]:
        found: dict[int, list[str]] = {}
        for relation, table in sorted(self.tables.items()):
            if table.colocation is not None:
                found.setdefault(table.colocation, []).append(relation)
        return {group: tuple(relations) for group, relations in found.items()}

    @cached_property
    def _ranks(self) -> Mapping[tuple[Hashable, int], tuple[str, ...]]:
        found: dict[tuple[Hashable, int], list[str]] = {}
        for part, primary in sorted(self.primaries.items(), key=lambda p: (p[1].relation, p[0])):
            found.setdefault(self._place_of(part, primary), []).append(part)
        return {place: tuple(parts) for place, parts in found.items()}

    def _place_of(self, part_name: str, primary: Copy) -> tuple[Hashable, int]:
        table = self.tables.get(primary.relation)
        if table is None or table.colocation is None:
            return part_name, 0
        return table.colocation, number_of(part_name)

    def group(self, relation: str) -> tuple[str, ...]:
        """The tables that are colocated with one, itself too, in the order of their names."""
        table = self.tables.get(relation)
        if table is None or table.colocation is None:
            return (relation,)
        return self._groups[table.colocation]

    def rank(self, part_name: str) -> tuple[str, ...]:
        """The partitions that go together: those of its number of all tables that are colocated with its
        own, itself too, in the order of their tables' names."""
        primary = self.primaries.get(part_name)
        return (part_name,) if primary is None else self._ranks[self._place_of(part_name, primary)]

    def leads(self, part_name: str) -> bool:
        """Whether a partition is the first of those that it goes together with: what is done once for all of
        them is done for it."""
        return self.rank(part_name)[0] == part_name

    @property
    def members(self) -> tuple[int, ...]:
        """The nodes that have the cluster's tables: the lord and the active workers."""
        return tuple(sorted(n.id for n in self.nodes.values() if n.lord or n.is_active_worker))

    @property
    def workers(self) -> tuple[Node, ...]:
        """The active workers, by id."""
        return tuple(n for _, n in sorted(self.nodes.items()) if n.is_active_worker)

    @property
    def places(self) -> tuple[Node, ...]:
        """The active workers that copies may be placed on, by id."""
        return tuple(n for n in self.workers if not n.draining)

    @property
    def maintained(self) -> frozenset[int]:
        """The nodes whose absence is planned."""
        return frozenset(n.id for n in self.nodes.values() if n.maintained)

    @property
    def zones(self) -> Mapping[int, str]:
        """By node what may fail together; a server without a zone is one by itself."""
        return {n.id: n.zone_name for n in self.nodes.values()}

    @property
    def lord(self) -> Node:
        return next(n for n in self.nodes.values() if n.lord)

    def copies_of(self, part_name: str) -> tuple[Copy, ...]:
        return self._by_part.get(part_name, ())

    def succession(self, part_name: str) -> tuple[Copy, ...]:
        """The copies of a partition in the order of succession, the primary first."""
        by_owner = {c.owner: c for c in self.copies_of(part_name)}
        ordered = [self.primary(part_name)]
        while (nxt := ordered[-1].nxt) is not None and nxt in by_owner:
            ordered.append(by_owner.pop(nxt))
        return tuple(ordered)

    def replicas_of(self, part_name: str) -> tuple[int, ...]:
        """The nodes whose replicas follow the primary, in the order of succession."""
        return tuple(c.owner for c in self.succession(part_name)[1:] if c.stale_since is None)

    def stale_replicas_of(self, part_name: str) -> tuple[int, ...]:
        """The nodes whose replicas do not, in the order of succession."""
        return tuple(c.owner for c in self.succession(part_name)[1:] if c.stale_since is not None)

    def copies_on(self, node_id: int) -> tuple[Copy, ...]:
        return self._by_owner.get(node_id, ())

    def primary(self, part_name: str) -> Copy:
        """Raises UserError when there is no such partition."""
        try:
            return self.primaries[part_name]
        except KeyError:
            raise UserError(
                f"there is no partition {part_name}",
                "Select part_name from shardman.partitions to see those there are",
                code=Code.NO_SUCH_PARTITION,
            ) from None

    def table(self, relation: str) -> Table:
        """Raises UserError when the table is not sharded."""
        try:
            return self.tables[relation]
        except KeyError:
            raise UserError(
                f"{relation} is not a sharded table",
                "Select relation from shardman.tables to see those there are",
                code=Code.NOT_SHARDED,
            ) from None

    def shared_table(self, relation: str) -> Shared:
        """Raises UserError when the table is not shared."""
        try:
            return self.shared[relation]
        except KeyError:
            raise UserError(
                f"{relation} is not a shared table",
                "Select relation from shardman.shared_tables to see those there are",
                code=Code.NOT_SHARED,
            ) from None

    @property
    def shared_in_order(self) -> tuple[Shared, ...]:
        """The shared tables, each behind those that it refers to, as far as there is such an order."""
        found: dict[str, Shared] = {}

        def take(table: Shared, above: frozenset[str]) -> None:
            for other in table.refers:
                if other in self.shared and other not in found and other not in above:
                    take(self.shared[other], above | {other})
            found.setdefault(table.relation, table)

        for name in sorted(self.shared):
            take(self.shared[name], frozenset({name}))
        return tuple(found.values())

    def worker(self, node_id: int) -> Node:
        """Raises UserError when there is no active worker of that id."""
        node = self.nodes.get(node_id)
        if node is None or node.status is None:
            known = ", ".join(str(n.id) for n in self.workers) or "none"
            raise UserError(
                f"there is no worker {node_id}", f"The workers are: {known}", code=Code.NO_SUCH_NODE
            )
        if not node.is_active_worker:
            raise UserError(
                f"worker {node_id} is {node.status}",
                "Choose an active one, see shardman.nodes",
                code=Code.NODE_NOT_ACTIVE,
            )
        return node

    def place(self, node_id: int) -> Node:
        """Raises UserError when nothing may be placed on a node."""
        node = self.worker(node_id)
        if node.draining:
            raise UserError(
                f"worker {node_id} is being drained",
                "Choose another destination, or end it with drain_node and drain => false",
                code=Code.NODE_DRAINING,
            )
        return node
