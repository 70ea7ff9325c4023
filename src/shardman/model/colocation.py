"""Where the copies of a table have to be so that its partitions go together with another one's. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shardman.model.cluster import Cluster, Table, number_of
from shardman.model.placement import Move, natural
from shardman.model.replicas import Change


@dataclass(frozen=True)
class Gathering:
    """What brings the copies of a table to those of another one.

    Args:
        moves: of primaries, and switches of them.
        changes: of replicas.
        waits_for: a partition of the other table, and a node, whose replica does not follow: nothing can be
            laid beside it.
    """

    moves: tuple[Move, ...]
    changes: tuple[Change, ...]
    waits_for: tuple[str, int] | None

    @property
    def done(self) -> bool:
        return not (self.moves or self.changes or self.waits_for)


def gathering(cluster: Cluster, relation: str, other: str) -> Gathering:
    """What is to be done with the partitions of ``relation``, in the order of their numbers."""
    mine, theirs = _numbered(cluster, relation), _numbered(cluster, other)
    moves: list[Move] = []
    changes: list[Change] = []
    waits_for: tuple[str, int] | None = None
    for number, part in mine.items():
        beside = theirs[number]
        src, dest = cluster.primary(part).owner, cluster.primary(beside).owner
        held = {c.owner for c in cluster.succession(part)[1:]}
        following = set(cluster.replicas_of(part))
        if src != dest:
            moves.append(Move(part, src, dest, kind="switch" if dest in held else "move"))
            if dest in held:
                held, following = (held - {dest}) | {src}, (following - {dest}) | {src}
        wanted = set(cluster.replicas_of(beside))
        # There are never fewer than before.
        changes += [Change(part, n, add=True) for n in sorted(wanted - following)]
        changes += [Change(part, n, add=False) for n in sorted(held - wanted)]
        for node in cluster.stale_replicas_of(beside):
            waits_for = waits_for or (beside, node)
    return Gathering(tuple(moves), tuple(changes), waits_for)


def references_inside(cluster: Cluster, relation: str) -> list[tuple[str, str]]:
    """The foreign keys between a table and others of its group: the table that has it, and its name."""
    return [
        (each, key["name"])
        for each in cluster.group(relation)
        for key in _inside(cluster.table(each))
        if key["to"] != each and relation in (each, key["to"])
    ]


def _inside(table: Table) -> list[Mapping[str, Any]]:
    keys: Any = table.definition.get("foreign_keys") or ()
    return [key for key in keys if "to_columns" in key]


def _numbered(cluster: Cluster, relation: str) -> dict[int, str]:
    parts = [p for p, c in cluster.primaries.items() if c.relation == relation]
    return {number_of(p): p for p in sorted(parts, key=lambda p: (natural(p), p))}


def why_not(table: Table, definition: Mapping[str, Any]) -> str | None:
    """Why a table that is defined so cannot be colocated with a sharded one; None when it can.

    The same value has to lie in partitions of the same number: that is so where the keys have the same types.
    """
    mine, theirs = _key(definition), _key(table.definition)
    if len(mine) != len(theirs):
        return f"its key has {len(mine)} values, that of {table.relation} has {len(theirs)}"
    for one, other in zip(mine, theirs, strict=True):
        if one[1:] != other[1:]:
            return (
                f"{_said(*one)} of its key has not the type of {_said(*other)} of that of"
                f" {table.relation}"
            )
    return None


def _key(definition: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The values of a key as SQL has them, each with its type and its collation."""
    columns = {c["name"]: c for c in definition.get("columns") or ()}
    return [
        (item["sql"], item["type"], columns.get(item["column"], {}).get("collation") or "")
        for item in definition.get("key") or ()
    ]


def _said(sql: str, type_: str, collation: str) -> str:
    return f"{sql} ({type_}{f', collation {collation}' if collation else ''})"
