"""rm_node: when it refuses, what it plans."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shardman.commands.base import Facts
from shardman.commands.rm_node import RmNode
from shardman.errors import UserError
from shardman.model.cluster import Cluster, Copy, Node, Table


def cluster(parts_on_2: int) -> Cluster:
    nodes = (
        Node(0, "host=lord", None, lord=True),
        Node(1, "host=a", "active"),
        Node(2, "host=b", "active"),
        Node(3, "host=c", "removed"),
    )
    return Cluster(
        id="abcdef",
        nodes={n.id: n for n in nodes},
        tables={"acc": Table("acc", "id", parts_on_2, 1)},
        copies=tuple(Copy(f"acc_{k}", 2, None, None, "acc") for k in range(parts_on_2)),
    )


def test_reads_its_options() -> None:
    assert RmNode.from_options([("node_id", "2"), ("force", "true")]) == RmNode(2, force=True)
    assert RmNode.from_options([("node_id", "2"), ("force", "false")]) == RmNode(2, force=False)


def test_names_the_partitions_that_are_in_the_way() -> None:
    with pytest.raises(UserError) as refused:
        RmNode(2).plan(Facts(cluster(12), answers={"answers": True}))
    assert "holds 12 partitions (acc_0, acc_1, acc_2" in refused.value.what
    assert refused.value.what.count("acc_") == 12
    with pytest.raises(UserError) as refused:
        RmNode(2).plan(Facts(cluster(200), answers={"answers": True}))
    assert refused.value.what.count("acc_") == 100
    assert "…" in refused.value.what


def test_what_force_costs_is_said_before() -> None:
    with pytest.raises(UserError) as refused:
        RmNode(2).plan(Facts(cluster(2), answers={"answers": True}))
    assert "the rows of 2 partitions (acc_0, acc_1), of which no other node" in refused.value.hint
    replicated = cluster(1)
    copies = (Copy("acc_0", 1, None, 2, "acc"), Copy("acc_0", 2, 1, None, "acc"))
    with pytest.raises(UserError) as refused:
        RmNode(2).plan(Facts(replace(replicated, copies=copies), answers={"answers": True}))
    assert "no row becomes unreachable" in refused.value.hint


def test_one_partition_is_one() -> None:
    with pytest.raises(UserError, match=r"holds 1 partition \(acc_0\)"):
        RmNode(2).plan(Facts(cluster(1), answers={"answers": True}))


def test_force_says_what_is_lost() -> None:
    (warning,) = RmNode(2, force=True).plan(Facts(cluster(2))).warnings
    assert warning == (
        "Cannot be reached without node 2, for they have no replica that may take over:"
        " 2 partitions (acc_0, acc_1)."
    )


def test_force_asks_who_can_take_over() -> None:
    assert [q.node for q in RmNode(2, force=True).survey(cluster(0))] == [1, 2]
    assert [q.node for q in RmNode(2).survey(cluster(0))] == [2]


def test_force_promotes_replicas() -> None:
    before = cluster(2)
    copies = (
        Copy("acc_0", 2, None, 1, "acc"),
        Copy("acc_0", 1, 2, None, "acc"),
        Copy("acc_1", 2, None, None, "acc"),
    )
    facts = Facts(
        Cluster(before.id, before.nodes, before.tables, copies),
        answers={"answers 1": True, "answers 2": True},
    )
    plan = RmNode(2, force=True).plan(facts)
    assert plan.warnings == (
        "Replicas take over 1 partition (acc_0).",
        (
            "Cannot be reached without node 2, for they have no replica that may take over:"
            " 1 partition (acc_1)."
        ),
    )
    assert [s.kind for s in plan.prepare] == ["cut_channel"]


def test_a_node_that_is_down_needs_force() -> None:
    with pytest.raises(UserError, match="node 2 cannot be reached"):
        RmNode(2).plan(Facts(cluster(0), answers={"answers": None}))
    RmNode(2, force=True).plan(Facts(cluster(0)))


@pytest.mark.parametrize(
    ("node", "words"),
    [(0, "there is no worker 0"), (9, "there is no worker 9"), (3, "node 3 is removed already")],
)
def test_nodes_that_cannot_be_removed(node: int, words: str) -> None:
    for force in (False, True):
        command = RmNode(node, force)
        assert command.survey(cluster(0)) == ()
        with pytest.raises(UserError, match=words):
            command.plan(Facts(cluster(0)))
