"""rebalance: what it asks, what it plans."""

from __future__ import annotations

import pytest

from shardman.commands.base import Claim, Facts
from shardman.commands.rebalance import Rebalance
from shardman.errors import UserError
from shardman.model.cluster import Cluster, Copy, Node, Table
from shardman.model.placement import Move


def cluster(owners: list[int], workers: int = 3) -> Cluster:
    return Cluster(
        id="abcdef",
        nodes={
            0: Node(0, "", None, lord=True),
            **{i: Node(i, "", "active") for i in range(1, workers + 1)},
            9: Node(9, "", "removed"),
        },
        tables={"acc": Table("acc", "id", len(owners), 1)},
        copies=tuple(Copy(f"acc_{k}", owner, None, None, "acc") for k, owner in enumerate(owners)),
    )


def test_asks_every_worker_for_the_sizes_of_its_partitions() -> None:
    asked = {q.node: q.params for q in Rebalance("acc").survey(cluster([1, 1, 2]))}
    assert asked == {1: (["acc_0", "acc_1"],), 2: (["acc_2"],), 3: ([],)}


def test_moves_and_spread() -> None:
    facts = Facts(
        cluster([1, 1, 1]),
        answers={
            "sizes 1": {"acc_0": 30, "acc_1": 10, "acc_2": 20},
            "sizes 2": {},
            "sizes 3": {},
        },
    )
    placement = Rebalance("acc").placement(facts)
    assert placement.moves == (Move("acc_0", 1, 2, 30), Move("acc_1", 1, 3, 10))
    assert placement.before.gap("number") == 3
    assert placement.after.gap("number") == 0
    plan = Rebalance("acc").plan(facts)
    assert not plan.atomic
    assert [(s.kind, dict(s.args)) for s in plan.finish] == [
        ("run_moves", {"relation": "acc", "by": "number"})
    ]


def test_a_node_that_is_away_takes_no_part() -> None:
    facts = Facts(cluster([1, 1, 2]), answers={"sizes 1": {}, "sizes 2": None, "sizes 3": {}})
    placement = Rebalance("acc").placement(facts)
    assert placement.moves == (Move("acc_0", 1, 3, 0),)
    assert Rebalance("acc").plan(facts).warnings == (
        "Node 2 cannot be reached: nothing is moved to it or from it.",
    )


def test_options() -> None:
    assert Rebalance.from_options([("relation", "acc")]) == Rebalance("acc", "number")
    assert Rebalance.from_options([("relation", "acc"), ("by", "bytes")]) == Rebalance(
        "acc", "bytes"
    )
    with pytest.raises(UserError):
        Rebalance.from_options([("relation", "acc"), ("by", "colour")])


def test_not_a_sharded_table() -> None:
    with pytest.raises(UserError, match="not a sharded table"):
        Rebalance("other").plan(Facts(cluster([])))


def test_runs_alone_on_its_table() -> None:
    assert Claim("table acc") in Rebalance("acc").claims(cluster([]))
