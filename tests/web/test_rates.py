"""Rates out of what servers have counted, and whether a node may be stopped; no server."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from shardman.nodes.status import NodeStatus, Shardlord, Status
from shardman.web.rates import KEPT, Rate, Rates
from shardman.web.stopping import stopping


def part(name: str, written: int | None, read: int = 0, node: int = 1) -> dict[str, Any]:
    return {"part_name": name, "primary_on": node, "written": written, "read": read}


def test_rates_are_over_some_seconds() -> None:
    rates = Rates()
    assert rates.take(0.0, [part("a", 100)]) == {}
    assert rates.take(2.0, [part("a", 120, 10)]) == {"a": Rate(10.0, 5.0)}
    for second in range(3, 100):
        last = rates.take(float(second), [part("a", 120 + second, 10)])
    assert last["a"] == Rate(1.0, 0.0)


def test_what_another_server_counted_is_no_rate() -> None:
    rates = Rates()
    rates.take(0.0, [part("a", 1000), part("b", 1000), part("c", None), part("d", 1000)])
    found = rates.take(1.0, [part("a", 1001, node=2), part("b", 3), part("c", 1), part("d", 1000)])
    assert found == {"d": Rate(0.0, 0.0)}


def test_little_is_kept() -> None:
    rates = Rates()
    for n in range(1000):
        rates.take(n / 100, [part("a", n)])
    assert len(rates._looks) <= KEPT


def cluster(
    *replicas: list[int],
    sync: bool = True,
    stale: tuple[int, ...] = (),
    down: tuple[int, ...] = (),
    acting: bool = True,
    lord: str = "lord",
) -> Status:
    """Three workers; node n has the primary of partition n, whose replicas are given."""
    parts = tuple(
        {
            "relation": "acc",
            "part_name": f"acc_{n}",
            "primary_on": n,
            "replicas_on": on,
            "stale_on": [r for r in on if r in stale],
        }
        for n, on in enumerate(replicas, 1)
    )
    nodes = (
        NodeStatus(0, lord, "h0", primaries=0),
        *(
            NodeStatus(
                n, "worker", f"h{n}", why="gone" if n in down else None,
                primaries=int(n <= len(replicas)), replicas=sum(n in on for on in replicas),
            )
            for n in (1, 2, 3)
        ),
    )  # fmt: skip
    shardlord = Shardlord("me", 1, timedelta(0), acting)
    return Status("abc", shardlord, nodes, ({"relation": "acc", "sync": sync},), parts, (), ())


@pytest.mark.parametrize(
    ("now", "node", "safe", "says"),
    [
        (cluster([2], [3]), 1, True, "take over its 1 primaries"),
        (cluster([2], []), 2, False, "1 have none at all (acc_2)"),
        (
            cluster([2], stale=(2,)),
            1,
            False,
            "does not follow or is not waited for (acc_1 on node 2)",
        ),
        (cluster([2], sync=False), 1, False, "no replica that could take over"),
        (cluster([2], down=(2,)), 1, False, "bring it back first"),
        (cluster([2], down=(3,)), 1, False, "2 of 3 workers would be away"),
        (cluster([2], acting=False), 1, False, "No shardlord acts"),
        (cluster([2]), 2, True, "no primaries"),
        (cluster([2]), 3, True, "no copy of any partition"),
        (cluster([2]), 0, True, "no command runs"),
        (cluster([2], down=(1,)), 0, False, "node 1 is away"),
        (cluster([2], down=(1,)), 2, False, "Its replicas of acc_1 are the only copies"),
        (cluster([2], down=(1,)), 3, True, "no copy of any partition"),
        (cluster([2], down=(1,)), 1, False, "may have been stopped"),
    ],
)
def test_whether_a_node_may_be_stopped(now: Status, node: int, safe: bool, says: str) -> None:
    found = stopping(now, node)
    assert (found.safe, says in found.words) == (safe, True), found
