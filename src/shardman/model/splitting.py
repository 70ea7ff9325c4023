"""Where the copies of a table's new partitions are, when their number is changed; pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster


@dataclass(frozen=True)
class Brought:
    """A copy that goes to another node first; ``src`` None: a replica becomes the primary."""

    part_name: str
    dest: int
    src: int | None


@dataclass(frozen=True)
class Gathering:
    """
    Args:
        moves: what has to be done before, in this order.
        copies: the nodes of the copies of each new partition, the primary's first.
    """

    moves: tuple[Brought, ...]
    copies: tuple[tuple[int, ...], ...]


def gather(cluster: Cluster, relation: str, former: int, count: int) -> Gathering:
    """What is split stays where it is. Of partitions that become one, all come to where the first is.

    Raises:
        UserError: they do not have as many replicas as the first.
    """
    parts = {
        _number(c.part_name): c.part_name
        for c in cluster.primaries.values()
        if c.relation == relation
    }
    places = {k: tuple(c.owner for c in cluster.succession(part)) for k, part in parts.items()}
    step = min(former, count)
    moves = [
        move
        for k in range(count, former)
        for move in _to(parts[k], places[k], parts[k % step], places[k % step])
    ]
    return Gathering(tuple(moves), tuple(places[k % former] for k in range(count)))


def _to(part: str, here: tuple[int, ...], first: str, wanted: tuple[int, ...]) -> Iterator[Brought]:
    """What brings the copies of a partition to the nodes that are wanted, the primary to the first of them."""
    if len(here) != len(wanted):
        raise UserError(
            f"{part} has {len(here) - 1} replicas and {first} {len(wanted) - 1}, and they become one partition",
            "Give all as many with set_replevel first",
            code=Code.TABLE_UNSUITABLE,
        )
    missing = [node for node in wanted if node not in here]
    primary = here[0]
    for node in here:
        if node not in wanted:
            dest = missing.pop(0)
            yield Brought(part, dest, node)
            primary = dest if node == here[0] else primary
    if primary != wanted[0]:
        yield Brought(part, wanted[0], None)


def _number(part_name: str) -> int:
    """k of partition acc_k."""
    return int(part_name.rstrip('"').rsplit("_", 1)[1])
