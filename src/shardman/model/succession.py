"""Who takes over when a node dies. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from shardman.model.cluster import Cluster


@dataclass(frozen=True)
class Succession:
    """What becomes of a dead node's copies.

    Args:
        promoted: the copies of each partition that goes on elsewhere, in their new order: the first
            is the primary from now on. The dead node has none of them.
        lossy: promoted partitions whose new primary may lack acknowledged writes.
        stale: partitions and nodes of replicas that follow nobody from now on: those on the dead
            node, and the other replicas of promoted partitions, which may differ from the new primary
            in writes that were never acknowledged.
        stuck: partitions with no replica that may take over: they stay with the dead node.
        subscribers: nodes with channels from the dead one for promoted partitions.
        publishers: nodes with channels to it.
        suspended: shared tables of which others have copies: they are written without the dead node's.
    """

    promoted: Mapping[str, tuple[int, ...]]
    lossy: tuple[str, ...]
    stale: tuple[tuple[str, int], ...]
    stuck: tuple[str, ...]
    subscribers: tuple[int, ...]
    publishers: tuple[int, ...]
    suspended: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether anything goes on elsewhere, or without the dead node."""
        return bool(self.promoted or self.stale or self.suspended)

    def only(self, parts: Collection[str]) -> Succession:
        """What concerns partitions that go together, whose primaries the node had."""
        stale = tuple((p, n) for p, n in self.stale if p in parts)
        promoted = {p: order for p, order in self.promoted.items() if p in parts}
        following = {n for _, n in stale} | {order[0] for order in promoted.values()}
        return Succession(
            promoted,
            tuple(p for p in self.lossy if p in parts),
            stale,
            tuple(p for p in self.stuck if p in parts),
            tuple(sorted(following)),
            (),
        )


def succeed(
    cluster: Cluster,
    dead: int,
    alive: Iterable[int],
    accept_data_loss: bool = False,
    unproven: Collection[tuple[str, int]] = (),
) -> Succession:
    """What becomes of the copies on a dead node. Partitions that go together go to one node, or stay.

    Args:
        alive: the workers that can be reached.
        accept_data_loss: promote also what may lack acknowledged writes, where nothing else is there.
        unproven: partitions and nodes of replicas that should follow, and of which it is not sure.
    """
    there = set(alive)
    promoted: dict[str, tuple[int, ...]] = {}
    lossy: list[str] = []
    stale: list[tuple[str, int]] = []
    stuck: list[str] = []
    subscribers: set[int] = set()
    publishers: set[int] = set()
    for copy in cluster.copies_on(dead):
        part = copy.part_name
        if not cluster.leads(part):
            continue
        if copy.prv is not None:
            if copy.stale_since is None:
                stale += [(p, dead) for p in cluster.rank(part)]
                publishers.add(cluster.primary(part).owner)
            continue
        safe, others = _candidates(cluster, part, unproven)
        heir = next((r for r in safe if r in there), None)
        if heir is None and accept_data_loss:
            heir = next((r for r in others if r in there), None)
            lossy += cluster.rank(part) if heir is not None else []
        if heir is None:
            stuck += cluster.rank(part)
            continue
        rest = [c.owner for c in cluster.succession(part)[1:] if c.owner != heir]
        promoted |= dict.fromkeys(cluster.rank(part), (heir, *rest))
        following = cluster.replicas_of(part)
        stale += [(p, r) for p in cluster.rank(part) for r in following if r != heir]
        subscribers |= set(following)
    return Succession(
        promoted,
        tuple(lossy),
        tuple(stale),
        tuple(stuck),
        tuple(sorted(subscribers)),
        tuple(sorted(publishers)),
        _suspended(cluster, dead, there, stuck),
    )


def _suspended(
    cluster: Cluster, dead: int, there: Collection[int], stuck: Iterable[str]
) -> tuple[str, ...]:
    """Not those that partitions refer to which only the dead node has: nobody can see whether one of their
    rows forbids a DELETE."""
    needed: set[str] = set()
    for part in stuck:
        needed |= cluster.table(cluster.primary(part).relation).refers
    return tuple(
        table.relation
        for table in cluster.shared_in_order
        if dead in table.nodes
        and any(n in there for n in table.nodes if n != dead)
        and table.relation not in needed
    )


def _candidates(
    cluster: Cluster, part: str, unproven: Collection[tuple[str, int]]
) -> tuple[list[int], list[int]]:
    """Replicas that have every acknowledged write, and those that may lack some, the better first.
    Partitions that go together have one heir: it has every write to all of them, or may lack some."""
    parts = cluster.rank(part)
    follow = cluster.replicas_of(part)
    doubtful = [
        r for r in follow if r in cluster.maintained or any((p, r) in unproven for p in parts)
    ]
    following = [r for r in follow if r not in doubtful]
    stale = list(cluster.stale_replicas_of(part))
    if all(cluster.table(cluster.primary(p).relation).sync for p in parts):
        return following, doubtful + stale
    return [], following + doubtful + stale
