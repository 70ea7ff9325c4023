"""Zones, drained nodes, asynchronous replicas, and a rebalance of all copies, on four workers."""

from __future__ import annotations

from collections import Counter

import pytest

from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.load import Bank, Load, make_bank
from shardman.testing.plugin import ClusterFactory

SIZE = 400
ZONES = {1: "a", 2: "a", 3: "b", 4: "b"}
TABLES = ("accounts", "marks")


@pytest.fixture(scope="module")
def four(module_cluster_factory: ClusterFactory) -> Cluster:
    return module_cluster_factory(workers=4)


@pytest.fixture(scope="module")
def bank(four: Cluster) -> Bank:
    """Accounts and marks, six partitions each."""
    return make_bank(four, SIZE)


def ok(cluster: Cluster, query: str, *params: object) -> str:
    done = cluster.cmd(query.encode(), params)
    assert done.status in ("success", "done"), done
    return done.result or ""


def copies(cluster: Cluster, relation: str) -> dict[str, list[int]]:
    """The nodes of each partition's copies, the primary's first."""
    rows = cluster.sql(
        0,
        "select part_name, array_agg(owner order by prv nulls first) from shardman.partitions"
        " where relation = %s group by part_name",
        (relation,),
    )
    return dict(rows)


def zones_of(owners: list[int]) -> set[str]:
    return {ZONES[n] for n in owners}


def test_replicas_go_to_another_zone(four: Cluster, bank: Bank) -> None:
    for node, zone in ZONES.items():
        ok(four, "select shardman.set_zone(%s, %s)", node, zone)
    for relation in TABLES:
        ok(four, "select shardman.set_replevel(%s, 1)", relation)
        for owners in copies(four, relation).values():
            assert zones_of(owners) == {"a", "b"}
    refused = four.cmd("select shardman.set_zone(9, 'a')")
    assert refused.error == "there is no worker 9. The workers are: 1, 2, 3, 4."


def test_a_node_is_drained_under_load(four: Cluster, bank: Bank) -> None:
    work = [bank.increment, bank.read_then_write, bank.transfer]
    before = four.value(1, "select sum(touched) from accounts")
    with Load(list(four.worker_dsns.values()), work, workers=4, marks="marks") as load:
        said = ok(four, "select shardman.drain_node(2)")
        assert "stays" not in said and "No other node" not in said
        assert not [n for r in TABLES for o in copies(four, r).values() for n in o if n == 2]
        for relation in TABLES:
            found = copies(four, relation)
            assert {p: o for p, o in found.items() if len(set(o)) != 2} == {}, said
        # Nothing comes to it, whoever asks.
        assert "Moved 0 of" in ok(four, "select shardman.rebalance('accounts')")
        refused = four.cmd("select shardman.move_part('accounts_0', 2)")
        assert refused.error is not None and "worker 2 is being drained" in refused.error
    assert load.errors == []
    assert load.acknowledged > 20
    for node in four.worker_dsns:
        assert four.value(node, "select sum(touched) from accounts") == before + load.added
        assert four.value(node, "select sum(balance) from accounts") == SIZE * 1000
    told = {m for t in load.tallies for m in t.inserted}
    assert {r[0] for r in four.sql(2, "select id from marks")} == told
    assert check(four.lord_dsn, data=True) == []


def test_it_is_used_again(four: Cluster, bank: Bank) -> None:
    ok(four, "select shardman.drain_node(2, false)")
    for relation in TABLES:
        ok(four, "select shardman.rebalance(%s)", relation)
        found = copies(four, relation)
        held = Counter(n for owners in found.values() for n in owners)
        assert held[2] >= 2
        primaries = Counter(owners[0] for owners in found.values())
        assert max(primaries.values()) - min(primaries[n] for n in ZONES) <= 1
        assert all(zones_of(owners) == {"a", "b"} for owners in found.values())
    assert check(four.lord_dsn, data=True) == []


def test_asynchronous_replicas_are_not_waited_for(four: Cluster, bank: Bank) -> None:
    for relation in TABLES:
        ok(four, "select shardman.set_sync(%s, false)", relation)
    owners = copies(four, "accounts")["accounts_0"]
    # However long a start takes here: nobody takes over meanwhile.
    four.sql(0, "insert into shardman.settings values ('failover_after', '3600')")
    four.stop_node(owners[1], "immediate")
    try:
        with four.connect(owners[0]) as client:
            client.execute("set statement_timeout = '60s'")
            client.execute("update accounts_0 set touched = touched + 1")
        refused = four.cmd("select shardman.set_sync('accounts', true)")
        assert refused.status == "failed", refused
        assert f"node {owners[1]} cannot be reached" in (refused.error or "")
    finally:
        four.start_node(owners[1])
    with four.connect(owners[0]) as client:
        for relation in TABLES:
            ok(four, "select shardman.set_sync(%s, true)", relation)
        client.execute("update accounts_0 set touched = touched + 1")
        expected = client.execute("select sum(touched) from accounts_0").fetchone()
        found = four.sql(owners[1], "select sum(touched) from accounts_0_data")
        assert found == [expected]
    assert check(four.lord_dsn, data=True, patience=40) == []
    four.sql(0, "delete from shardman.settings where name = 'failover_after'")
