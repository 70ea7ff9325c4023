"""add_node: what it plans."""

from __future__ import annotations

import pytest

from shardman.commands.add_node import AddNode
from shardman.commands.base import Claim, Facts
from shardman.errors import UserError
from shardman.model.cluster import Cluster, Node


def cluster(*nodes: Node) -> Cluster:
    every = (Node(0, "host=lord", None, lord=True), *nodes)
    return Cluster(id="abcdef", nodes={n.id: n for n in every}, tables={}, copies=())


def test_an_id_is_never_used_twice() -> None:
    facts = Facts(cluster(Node(1, "host=a", "active"), Node(7, "host=b", "removed")))
    plan = AddNode("host=b").plan(facts)
    assert {s.args.get("node") for s in (*plan.prepare, *plan.switch)} == {8}


def test_the_first_worker_is_node_1() -> None:
    assert AddNode("host=a").plan(Facts(cluster())).switch[0].args["node"] == 1


def test_what_cannot_be_undone_comes_after_all_that_can_be_known_before() -> None:
    kinds = [s.kind for s in AddNode("host=a").plan(Facts(cluster())).prepare]
    assert kinds.index("check_node") < kinds.index("forget_former") < kinds.index("node_schema")


def test_a_member_is_refused() -> None:
    with pytest.raises(UserError, match="is node 1 already"):
        AddNode("host=a").plan(Facts(cluster(Node(1, "host=a", "active"))))


def test_one_change_of_membership_at_a_time() -> None:
    assert AddNode("host=a").claims(cluster()) == {Claim("membership")}
