"""The command line on a cluster of real servers, through any of its nodes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

import shardman
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

Program = Callable[..., Any]


@pytest.fixture(scope="module", autouse=True)
def acc(cluster: Cluster, program: Program) -> None:
    """A table of six partitions, all made by the program itself."""
    cluster.sql(1, "create table acc (id int primary key, v int not null default 0)")
    cluster.sql(1, "insert into acc select g from generate_series(1, 3000) g")
    said = program("create-hash-partitions", "1", "acc", "id", "6", dsn=cluster.dsn(2))
    assert said.code == 0, said


def test_a_healthy_cluster(cluster: Cluster, program: Program) -> None:
    for node in (0, 3):
        said = program("status", "--partitions", dsn=cluster.dsn(node))
        assert (said.code, "Nothing is wrong." in said.out) == (0, True), said
        assert "acc_5" in said.out
        told = json.loads(program("status", "--json", dsn=cluster.dsn(node)).out)
        assert told["healthy"] is True
        assert [n["primaries"] for n in told["nodes"]] == [0, 2, 2, 2]
        assert told["tables"][0]["primaries_on"] == {"1": 2, "2": 2, "3": 2}
    assert check(cluster.dsn(2), data=True) == []


def test_plans_do_nothing(cluster: Cluster, program: Program) -> None:
    before = cluster.value(0, "select max(id) from shardman.cmd_log")
    owner = cluster.value(0, "select owner from shardman.partitions where part_name = 'acc_0'")
    dest = owner % 3 + 1
    dsn = cluster.dsn(owner)
    said = program("plan", "move-part", "acc_0", str(dest), dsn=dsn)
    assert said.code == 0
    assert "switch (one transaction decides)" in said.out
    made = json.loads(program("move-part", "acc_0", str(dest), "--plan", "--json", dsn=dsn).out)
    assert {s["phase"] for s in made["steps"]} == {"prepare", "switch", "finish"}
    even = program("plan", "rebalance", "acc", dsn=dsn)
    assert "nothing to do" in even.out
    level = program("plan", "set-replevel", "acc", "1", dsn=dsn)
    assert level.out.count("make a replica") == 6
    assert "nothing to do" in program("plan", "set-replevel", "acc", "0", dsn=dsn).out
    assert program("plan", "move-part", "nix_0", "1", dsn=dsn).code == 1
    held = program("plan", "rm-node", str(owner), dsn=dsn)
    assert held.code == 1
    assert "acc_0" in held.err
    assert program("plan", "status", dsn=dsn).code == 2
    assert cluster.value(0, "select max(id) from shardman.cmd_log") == before


def test_rebalance_shows_moves_and_spread_and_then_makes_them(
    cluster: Cluster, program: Program
) -> None:
    dsn = cluster.dsn(1)
    with shardman.connect(dsn) as db:
        for part in ("acc_0", "acc_1", "acc_2", "acc_3"):
            result = db.move_part(part, 3)
            assert result.ok or "already" in (result.error or "")
    planned = json.loads(program("rebalance", "acc", "--plan", "--json", dsn=dsn).out)
    assert planned["moves"]
    assert {n["copies"] for n in planned["after"].values()} == {2}
    assert "from node" in program("plan", "rebalance", "acc", dsn=dsn).out
    said = program("rebalance", "acc", dsn=dsn)
    assert said.code == 0
    assert ": done" in said.out
    assert check(dsn, data=True) == []


def test_exec_on_every_node(cluster: Cluster, program: Program) -> None:
    said = program("exec", "select count(*) from acc", "--json", dsn=cluster.dsn(3))
    assert [(a["node"], a["rows"][0]["count"]) for a in json.loads(said.out)] == [
        (node, 3000) for node in (0, 1, 2, 3)
    ]
    some = program("exec", "select shardman.my_id()", "--nodes", "1,3", dsn=cluster.dsn(2))
    assert some.code == 0
    workers = program("exec", "select 1", "--workers", "--json", dsn=cluster.dsn(0))
    assert [a["node"] for a in json.loads(workers.out)] == [1, 2, 3]


def test_a_node_that_is_down_is_named(cluster: Cluster, program: Program) -> None:
    cluster.stop_node(3)
    try:
        for arguments in (("status",), ("check", "--patience", "0")):
            said = program(*arguments, dsn=cluster.dsn(1))
            assert said.code == 3
            assert "cannot reach 127.0.0.1" in said.out
        said = program("exec", "select 1", dsn=cluster.dsn(1))
        assert said.code == 1
        assert "node 3: error: cannot reach" in said.out
    finally:
        cluster.start_node(3)
    until_healthy(cluster, program)


def until_healthy(cluster: Cluster, program: Program) -> None:
    eventually(
        "status finds nothing wrong",
        lambda: program("status", dsn=cluster.dsn(1)),
        until=lambda said: said.code == 0,
        seconds=20,
        every=0.3,
    )


def test_without_the_lord_the_rest_is_still_shown(cluster: Cluster, program: Program) -> None:
    cluster.stop_node(0)
    try:
        said = program("status", dsn=cluster.dsn(1))
        assert said.code == 3
        assert "shardlord: unknown" in said.out
        assert "acc" in said.out
        submitted = program("rebalance", "acc", dsn=cluster.dsn(1))
        assert submitted.code == 1
        assert "cannot reach node 0: Connection refused" in submitted.err
    finally:
        cluster.start_node(0)
    until_healthy(cluster, program)


def test_what_does_not_match_the_metadata_is_found(cluster: Cluster) -> None:
    """The shardlord is stopped, or it would mend it at once."""
    cluster.stop_lord()
    try:
        part = cluster.value(
            1, "select part_name from shardman.partitions where owner <> 1 limit 1"
        )
        # It would put the route back.
        cluster.sql(1, "alter event trigger shardman_detached disable")
        cluster.sql(1, f"set shardman.ddl = 'here'; alter table {part} detach partition {part}_fdw")
        cluster.sql(1, "alter event trigger shardman_detached enable always")
        cluster.sql(1, f"create table {part}_data (like {part})")
        cluster.sql(2, "update shardman.tables set expr = 'something else'")
        found = [str(f) for f in check(cluster.dsn(3), patience=0)]
        here = f"{part} on node 1"
        assert any(
            f.startswith(f"{here}: the partition must have its route attached") for f in found
        )
        assert any("differs from the lord's: tables" in f and "node 2" in f for f in found)
        # With that the route is put back.
        cluster.sql(1, f"set shardman.ddl = 'here'; drop table {part}_data")
        cluster.sql(2, "update shardman.tables set expr = 'id'")
        assert check(cluster.dsn(3), patience=5) == []
    finally:
        cluster.start_lord()
