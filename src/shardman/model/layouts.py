"""How tables are laid again that were made anew, pure: which commands, in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: A table that lacks keys which it had is taken as it is when nothing has happened to it for so many seconds.
QUIET_S = 10.0
#: One that has them all is taken after so long: who makes it may be about to do more.
SETTLED_S = 0.5


@dataclass(frozen=True)
class Remembered:
    """A table that was dropped, as its node sees it.

    Args:
        layout: as shardman.layouts has it.
        here: it was made again, and is plain.
        known: the metadata have one of its name.
        lacks: the keys and foreign keys that it had and has not, in words.
    """

    relation: str
    layout: Mapping[str, Any]
    here: bool = True
    known: bool = False
    lacks: tuple[str, ...] = ()
    held: bool = False
    version: str | None = None

    @property
    def shared(self) -> bool:
        return bool(self.layout["kind"] == "shared")

    @property
    def refers(self) -> tuple[str, ...]:
        return tuple(r["to"] for r in self.layout["refers"] if r["to"] != self.relation)


@dataclass(frozen=True)
class Job:
    """A command that is to be submitted."""

    verb: str
    options: Mapping[str, Any] = field(default_factory=dict)


def read(answer: Sequence[Mapping[str, Any]]) -> list[Remembered]:
    """What shardman.layout_state has answered."""
    return [Remembered(**{**a, "lacks": tuple(a["lacks"] or ())}) for a in answer]


def is_whole(tables: Sequence[Remembered]) -> bool:
    """Whether all tables were made again with all that they had."""
    return all(not t.lacks if t.here else t.known for t in tables)


def is_free(tables: Sequence[Remembered]) -> bool:
    """Whether nobody is just writing to one, and none is dropped yet only in part."""
    return not any(t.held or (t.here and t.known) for t in tables)


def jobs(tables: Sequence[Remembered], node: int) -> list[Job]:
    """The commands that lay tables which are here as they lay, in order.

    Args:
        node: the worker that has them.
    """
    here = [t for t in tables if t.here]
    shared = _in_order([t for t in here if t.shared])
    sharded = [t for t in here if not t.shared]
    names = {t.relation for t in sharded}
    done: list[Job] = [
        Job("create_shared_table", {"relation": t.relation, "node_id": node}) for t in shared
    ]
    laid: list[str] = []
    for t in sharded:
        # One that was not dropped, or was laid before it.
        beside = [o for o in t.layout["beside"] if o not in names or o in laid]
        dropped = {o.relation for o in tables if not o.here and not o.known}
        beside = [o for o in beside if o not in dropped]
        options = {
            "node_id": node,
            "relation": t.relation,
            "expr": t.layout["expr"],
            "partitions_count": t.layout["partitions_count"],
            "rebalance": True,
        }
        done.append(
            Job(
                "create_hash_partitions",
                options | ({"colocate_with": beside[0]} if beside else {}),
            )
        )
        laid.append(t.relation)
    return done


def levels(tables: Sequence[Remembered]) -> list[Job]:
    """The commands that give sharded tables their replicas again."""
    return [
        Job("set_replevel", {"relation": t.relation, "replevel": t.layout["replevel"]})
        for t in tables
        if t.here and not t.shared and t.layout["replevel"]
    ]


def _in_order(tables: Sequence[Remembered]) -> list[Remembered]:
    """Those that others refer to before these."""
    left, order = list(tables), list[Remembered]()
    while left:
        names = {t.relation for t in left}
        following = next((t for t in left if not names & set(t.refers)), left[0])
        order.append(following)
        left.remove(following)
    return order
