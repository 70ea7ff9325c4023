"""Small clusters for the policies, and a clock that goes on only when it is told to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from shardman.model.cluster import Cluster, Copy, Node, Table

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """Seconds since some instant."""

    def __init__(self) -> None:
        self.now = 1000.0

    def wait(self, seconds: float) -> float:
        self.now += seconds
        return self.now


def cluster(
    workers: Iterable[int],
    lists: Mapping[str, Sequence[int]],
    *,
    stale: frozenset[tuple[str, int]] = frozenset(),
    level: int = 0,
    draining: Iterable[int] = (),
    maintained: Iterable[int] = (),
) -> Cluster:
    """A cluster of one table ``acc``.

    Args:
        lists: by partition the nodes of its copies, the primary's first.
        stale: partitions and nodes of old copies.
        level: of the table.
    """
    nodes = {0: Node(0, "host=lord", None, lord=True)}
    nodes |= {
        n: Node(
            n, f"host=n{n}", "active", draining=n in set(draining), maintained=n in set(maintained)
        )
        for n in workers
    }
    copies = []
    for part, owners in lists.items():
        around = [None, *owners, None]
        copies += [
            Copy(
                part,
                owner,
                around[k],
                around[k + 2],
                "acc",
                LONG_AGO if (part, owner) in stale else None,
            )
            for k, owner in enumerate(owners)
        ]
    table = Table("acc", "id", max(len(lists), 1), 1, replevel=level)
    return Cluster("abcdef", nodes, {"acc": table}, tuple(copies))


def ring(workers: int, maintained: Iterable[int] = ()) -> Cluster:
    """Each worker has one primary, and a replica of its neighbour's."""
    ids = range(1, workers + 1)
    lists = {f"acc_{n - 1}": [n, n % workers + 1] for n in ids}
    return cluster(ids, lists, level=1, maintained=maintained)
