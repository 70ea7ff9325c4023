"""create_hash_partitions: what it asks, refuses and plans."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shardman.commands.base import Claim, Facts
from shardman.commands.create_hash_partitions import CreateHashPartitions
from shardman.errors import UserError
from shardman.model.cluster import Cluster, Node, Table

COMMAND = CreateHashPartitions(1, "acc", "id", 4)


def cluster(*tables: str) -> Cluster:
    nodes = [Node(0, "", None, lord=True), *(Node(i, "", "active") for i in (1, 2))]
    return Cluster(
        id="abcdef",
        nodes={n.id: n for n in (*nodes, Node(3, "", "removed"))},
        tables={name: Table(name, "id", 4, 1) for name in tables},
        copies=(),
    )


def described(**more: Any) -> dict[str, Any]:
    return {
        "obstacles": [],
        "warnings": [],
        "create_sql": "create table …",
        "definition": {"expr": "id", "partitions_count": 4},
        "has_key": True,
        "rows": 10,
        "bytes": 8192,
        **more,
    }


OPTIONS = [
    ("node_id", "1"),
    ("relation", "acc"),
    ("expr", "id"),
    ("partitions_count", "4"),
    ("rebalance", "true"),
]


def facts(**answers: Any) -> Facts:
    given = {"described": described(), "taken 0": [], "taken 2": []}
    return Facts(cluster(), 7, given | {k.replace("_", " "): v for k, v in answers.items()})


def test_options() -> None:
    assert CreateHashPartitions.from_options(OPTIONS) == COMMAND
    assert not CreateHashPartitions.from_options([*OPTIONS[:-1], ("rebalance", "false")]).rebalance


def test_asks_the_node_for_the_table_and_all_others_for_its_names() -> None:
    assert {(q.key, q.node) for q in COMMAND.survey(cluster())} == {
        ("described", 1),
        ("taken 0", 0),
        ("taken 2", 2),
        ("used 0", 0),
        ("used 2", 2),
    }


def test_a_sequence_whose_name_is_taken_is_told_before_anything_is_done() -> None:
    definition = {**described()["definition"], "sequences": [{"name": "acc_id_seq"}]}
    taken = facts(described=described(definition=definition), used_2=["other", "acc_id_seq"])
    with pytest.raises(UserError, match=r"node 2 has relations of its own.*: acc_id_seq"):
        COMMAND.plan(taken)


def test_runs_alone_on_its_table() -> None:
    assert COMMAND.claims(cluster()) == {Claim("membership", shared=True), Claim("table acc")}


def test_everything_made_before_the_switch_can_be_taken_back() -> None:
    plan = COMMAND.plan(facts())
    assert [s.kind for s in plan.prepare] == [
        "give_needed",
        "give_ways",
        "check_definition",
        "conversion_log",
        "conversion_shadow",
        "conversion_copy",
        "conversion_index",
        "conversion_catch_up",
        "conversion_verify",
        "conversion_cut_over",
    ]
    assert [s.kind for s in plan.switch] == ["record_table"]
    assert [s.kind for s in plan.finish] == [
        "commit_prepared",
        "commit_prepared",
        "drop_aside",
        "converge",
        "end_fresh_routes",
    ]
    assert plan.atomic


def test_each_partition_has_its_place_from_the_start() -> None:
    plan = COMMAND.plan(facts())
    assert [s.args["places"] for s in (*plan.prepare, *plan.switch) if "places" in s.args] == [
        [2, 2, 1, 1]
    ] * 7
    # The table's node comes last: whoever waits there finds the others ready.
    assert [s.args["node"] for s in plan.finish if s.kind == "commit_prepared"] == [2, 1]


def test_a_node_that_is_away_or_draining_gets_no_partition() -> None:
    plan = COMMAND.plan(facts(taken_2=None))
    assert plan.switch[0].args["places"] == []
    draining = replace(cluster().nodes[2], draining=True)
    there = replace(cluster(), nodes={**cluster().nodes, 2: draining})
    plan = COMMAND.plan(replace(facts(), cluster=there))
    assert plan.switch[0].args["places"] == []


def test_without_a_key_it_is_locked_and_says_so() -> None:
    plan = COMMAND.plan(facts(described=described(has_key=False)))
    assert [s.kind for s in plan.prepare] == [
        "give_needed",
        "give_ways",
        "check_definition",
        "conversion_shadow",
        "convert_at_once",
    ]
    assert any("locked" in w for w in plan.warnings)


def test_without_rebalance_nothing_moves() -> None:
    plan = CreateHashPartitions(1, "acc", "id", 4, rebalance=False).plan(facts())
    assert plan.switch[0].args["places"] == []
    assert [s.kind for s in plan.finish] == ["commit_prepared", "drop_aside", "converge"]


def test_the_first_obstacle_is_named_and_the_others_are_counted() -> None:
    obstacles = [{"what": "acc is a view", "hint": "Take a table"}, {"what": "b", "hint": "c"}]
    with pytest.raises(UserError, match=r"acc is a view \(and 1 more in the way\). Take a table"):
        COMMAND.plan(facts(described=described(obstacles=obstacles)))


def test_names_in_use_elsewhere() -> None:
    with pytest.raises(UserError, match=r"node 2 has relations .*: acc_0, acc_1, acc_2 and 1 more"):
        COMMAND.plan(facts(taken_2=["acc_0", "acc_1", "acc_2", "acc_3"]))
    with pytest.raises(UserError, match="the lord has relations"):
        COMMAND.plan(facts(taken_0=["acc"]))


def test_a_node_that_is_away_follows_later() -> None:
    plan = COMMAND.plan(facts(taken_2=None))
    assert plan.warnings == ("Node 2 cannot be reached: it gets the table when it is back.",)


def test_the_node_of_the_table_must_be_there() -> None:
    with pytest.raises(UserError, match="node 1 cannot be reached"):
        COMMAND.plan(facts(described=None))
    with pytest.raises(UserError, match="there is no worker 8"):
        CreateHashPartitions(8, "acc", "id", 4).plan(Facts(cluster()))
    with pytest.raises(UserError, match="worker 3 is removed"):
        CreateHashPartitions(3, "acc", "id", 4).plan(Facts(cluster()))
    with pytest.raises(UserError, match="there is no worker 0"):
        CreateHashPartitions(0, "acc", "id", 4).plan(Facts(cluster()))


def test_once_is_enough() -> None:
    with pytest.raises(UserError, match="acc is sharded already"):
        COMMAND.plan(Facts(cluster("acc")))
