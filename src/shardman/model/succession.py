"""Who takes over when a node dies. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shardman.model.cluster import Cluster


@dataclass(frozen=True)
class Succession:
    """What becomes of a dead node's copies.

    Args:
        promoted: by partition, the node whose replica is the primary from now on: the first of the
            list of copies that can be reached. Replicas are synchronous, so it lacks nothing that was
            acknowledged.
        dropped: partitions and nodes of replicas that leave the list: those on the dead node, and the
            other replicas of promoted partitions, which may differ from the new primary in writes
            that were never acknowledged.
        stuck: partitions with no replica that can be reached: they stay with the dead node.
        subscribers: nodes with channels from the dead one.
        publishers: nodes with channels to it.
    """

    promoted: Mapping[str, int]
    dropped: tuple[tuple[str, int], ...]
    stuck: tuple[str, ...]
    subscribers: tuple[int, ...]
    publishers: tuple[int, ...]


def succeed(cluster: Cluster, dead: int, alive: Iterable[int]) -> Succession:
    """What becomes of the copies on a dead node.

    Args:
        alive: the workers that can be reached.
    """
    there = set(alive)
    promoted: dict[str, int] = {}
    dropped: list[tuple[str, int]] = []
    stuck: list[str] = []
    subscribers: set[int] = set()
    publishers: set[int] = set()
    for copy in cluster.copies_on(dead):
        part = copy.part_name
        if copy.prv is not None:
            dropped.append((part, dead))
            publishers.add(cluster.primary(part).owner)
            continue
        replicas = cluster.replicas_of(part)
        heir = next((r for r in replicas if r in there), None)
        if heir is None:
            stuck.append(part)
            continue
        promoted[part] = heir
        dropped += [(part, r) for r in replicas if r != heir]
        subscribers |= there.intersection(replicas)
    return Succession(
        promoted,
        tuple(dropped),
        tuple(stuck),
        tuple(sorted(subscribers)),
        tuple(sorted(publishers)),
    )
