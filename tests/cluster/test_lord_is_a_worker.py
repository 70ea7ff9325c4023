"""Three machines are a cluster: the lord's database holds partitions like any other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.load import Bank, Load, make_bank
from shardman.testing.waiting import eventually

pytestmark = pytest.mark.server

SIZE = 120


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A lord and two workers."""
    cluster = Cluster(workers=2)
    yield cluster
    cluster.close()


def ok(cluster: Cluster, query: str, *params: object) -> str:
    done = cluster.cmd(query.encode(), params)  # type: ignore[arg-type]
    assert done.status in ("success", "done"), done
    return done.result or ""


@pytest.fixture(scope="module")
def bank(cluster: Cluster) -> Bank:
    """Of tables that were sharded before the lord joined."""
    bank = make_bank(cluster, SIZE)
    cluster.sql(1, "create table numbered (id bigserial primary key, node int)")
    ok(cluster, "select shardman.create_hash_partitions(1, 'numbered', 'id', 4)")
    return bank


def test_it_joins(cluster: Cluster, bank: Bank) -> None:
    cluster.sql(0, "insert into numbered (node) values (0)")
    connstring = cluster.value(0, "select connstring from shardman.nodes where lord")
    ok(cluster, "select shardman.add_node(%s)", connstring)
    rows = cluster.sql(0, "select id, worker_status::text from shardman.nodes where lord")
    assert rows == [(3, "active")]
    assert cluster.value(0, "select shardman.my_id()") == 3
    for node in (0, 1, 2):
        cluster.sql(node, "insert into numbered (node) values (%s)", (node,))
    assert cluster.value(1, "select count(distinct id) = count(*) from numbered")
    assert check(cluster.lord_dsn, data=True) == []
    # Once is enough.
    done = cluster.cmd("select shardman.add_node(%s)", (connstring,))
    assert done.status == "failed"
    assert "node 3 already" in (done.error or "")
    # A worker can submit as before.
    cmd = cluster.submit("select shardman.rebalance('numbered')", node_id=1)
    assert cluster.wait(cmd).status == "done"


def test_partitions_come_and_go_under_load(cluster: Cluster, bank: Bank) -> None:
    dsns = [cluster.dsn(n) for n in (0, 1, 2)]
    with Load(dsns, [bank.increment, bank.read_then_write], workers=6) as load:
        ok(cluster, "select shardman.rebalance('accounts')")
        ok(cluster, "select shardman.rebalance('marks')")
        mine = (
            "select min(part_name) from shardman.partitions"
            " where owner = 3 and relation = 'accounts'"
        )
        part = cluster.value(0, mine)
        ok(cluster, "select shardman.move_part(%s, 1)", part)
        ok(cluster, "select shardman.move_part(%s, 3)", part)
        ok(cluster, "select shardman.set_replevel('accounts', 1)")
        ok(cluster, "select shardman.set_replevel('marks', 1)")
    assert load.errors == []
    for node in (0, 1, 2):
        assert cluster.value(node, "select sum(touched) from accounts") == load.added
    assert check(cluster.lord_dsn, data=True) == []


def test_a_worker_dies_and_it_takes_over(cluster: Cluster, bank: Bank) -> None:
    added = cluster.value(0, "select sum(touched) from accounts")
    with Load(
        [cluster.dsn(0), cluster.dsn(1)], [bank.increment], workers=4, reconnect=True
    ) as load:
        cluster.kill_node(2)
        mine = (
            "select count(*) from shardman.partitions"
            " where owner = 2 and prv is null and relation <> 'numbered'"
        )
        # Its switch is not the end: the heirs are promoted and the routes exchanged after it. What has no
        # replica has no heir, so not all is well at its end.
        over = (
            "select count(*) from shardman.cmd_log"
            " where cmd_type = 'failover' and status in ('success', 'done')"
        )
        eventually(
            "a failover is over", lambda: cluster.value(0, over) and cluster.value(0, mine) == 0
        )
    assert load.errors == []
    unknown = sum(t.unknown for t in load.tallies)
    touched = cluster.value(1, "select sum(touched) from accounts")
    assert added + load.added <= touched <= added + load.added + unknown
    cluster.start_node(2)
    stale = "select count(*) from shardman.partitions where stale_since is not null"
    eventually("no copy is stale", lambda: cluster.value(0, stale), until=lambda n: n == 0)
    assert check(cluster.lord_dsn, data=True, patience=60) == []


def test_it_is_not_removed(cluster: Cluster, bank: Bank) -> None:
    done = cluster.cmd("select shardman.rm_node(3, true)")
    assert done.status == "failed"
    assert "is the lord's database too" in (done.error or "")
