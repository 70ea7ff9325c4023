"""A node dies: its partitions go on elsewhere, and nothing that was acknowledged is lost."""

from __future__ import annotations

import os
import signal
import time

import pytest

from shardman.pg.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.load import Bank, Load, make_bank

SIZE = 300


@pytest.fixture(scope="module")
def bank(cluster: Cluster) -> Bank:
    """Marks have a copy on every node, accounts on two."""
    bank = make_bank(cluster, SIZE)
    for table, level in (("accounts", 1), ("marks", 2)):
        done = cluster.cmd("select shardman.set_replevel(%s, %s)", (table, level))
        assert done.status == "done", done
    return bank


def failed_over(cluster: Cluster, node: int, seconds: float) -> str:
    """The result of the failover that the shardlord begins by itself."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        rows = cluster.sql(
            0,
            "select status::text, result from shardman.commands where cmd_type = 'failover'"
            " and opts = %s order by id desc limit 1",
            (f"{node}, false",),
        )
        if rows and rows[0][0] == "success":
            return str(rows[0][1])
        time.sleep(0.1)
    raise AssertionError(cluster.sql(0, "select * from shardman.commands order by id desc limit 5"))


def settle(cluster: Cluster, seconds: float = 60) -> None:
    """Until nothing is left to be done for a node that was away."""
    until = time.monotonic() + seconds
    stale = "select count(*) from shardman.partitions where stale_since is not null"
    while cluster.value(0, stale) and time.monotonic() < until:
        time.sleep(0.3)
    while (found := check(cluster.lord_dsn, data=True)) and time.monotonic() < until:
        time.sleep(0.3)
    assert found == []


def test_a_worker_dies_under_load(cluster: Cluster, bank: Bank) -> None:
    work = [bank.increment, bank.read_then_write]
    dsns = [cluster.dsn(n) for n in (1, 3)]
    before = cluster.value(1, "select sum(touched) from accounts")
    with Load(dsns, work, workers=6, marks="marks", reconnect=True) as load:
        time.sleep(2)
        cluster.kill_node(2)
        said = failed_over(cluster, 2, 60)
        assert "Replicas take over 4 partitions" in said
        load.reset_waits()
        acknowledged = load.acknowledged
        until = time.monotonic() + 30
        while load.acknowledged <= acknowledged + 100:
            assert time.monotonic() < until
            time.sleep(0.1)
    assert load.errors == []
    unknown = sum(t.unknown for t in load.tallies)
    told = {m for t in load.tallies for m in t.inserted}
    for node in (1, 3):
        touched = cluster.value(node, "select sum(touched) from accounts")
        assert before + load.added <= touched <= before + load.added + unknown
        assert cluster.value(node, "select count(*) from accounts") == SIZE
        assert told <= {r[0] for r in cluster.sql(node, "select id from marks")}
    # Its copies are known, and nobody waits for them.
    assert (
        cluster.sql(
            0,
            "select 1 from shardman.partitions where owner = 2 and (prv is null or stale_since is null)",
        )
        == []
    )


def test_the_other_replica_follows_the_new_primary(cluster: Cluster, bank: Bank) -> None:
    """It lacks nothing that was acknowledged, so it is not copied anew."""
    until = time.monotonic() + 60
    query = (
        "select result from shardman.commands where cmd_type = 'create_replica' and parent is null"
        " and status = 'success'"
    )
    while len(said := cluster.sql(0, query)) < 2:  # type: ignore[arg-type]
        assert time.monotonic() < until
        time.sleep(0.2)
    assert all("old copy" in result for (result,) in said)
    stale = "select owner from shardman.partitions where stale_since is not null"
    assert {r[0] for r in cluster.sql(0, stale)} == {2}  # type: ignore[arg-type]


def test_replicas_are_made_again(cluster: Cluster, bank: Bank) -> None:
    """Elsewhere, when the node stays away."""
    cluster.sql(0, "insert into shardman.settings values ('rebuild_after', '1')")
    until = time.monotonic() + 60
    count = (
        "select count(*) from shardman.partitions"
        " where prv is not null and stale_since is null and relation = 'accounts'"
    )
    while cluster.value(0, count) < 6:
        assert time.monotonic() < until
        time.sleep(0.5)
    cluster.sql(0, "delete from shardman.settings where name = 'rebuild_after'")


def test_it_comes_back(cluster: Cluster, bank: Bank) -> None:
    rows = cluster.value(1, "select sum(touched) from accounts")
    cluster.start_node(2)
    settle(cluster)
    # It serves what the others serve, through routes, and keeps what it had aside.
    assert cluster.value(2, "select sum(touched) from accounts") == rows
    assert len(cluster.sql(2, "select table_name from shardman.set_aside")) == 4
    cluster.sql(2, "update accounts set touched = touched + 1")
    assert cluster.value(3, "select sum(touched) from accounts") == rows + SIZE
    # Its replicas of marks were brought up to date; of its primaries new ones are made, by the shardlord
    # itself if nobody asks for it.
    copies = "select count(*) from shardman.partitions where relation = 'marks'"
    assert 16 <= cluster.value(0, copies) <= 18
    assert cluster.cmd("select shardman.set_replevel('marks', 2)").status == "done"
    assert cluster.value(0, copies) == 18
    for table in ("accounts", "marks"):
        assert cluster.cmd("select shardman.rebalance(%s)", (table,)).status == "done"
    settle(cluster)


def test_a_short_absence_changes_nothing(cluster: Cluster, bank: Bank) -> None:
    picture = cluster.sql(0, "select part_name, owner, prv from shardman.partitions order by 1, 2")
    # However long this machine takes for a restart, it is a short one.
    cluster.sql(0, "insert into shardman.settings values ('failover_after', '3600')")
    cluster.stop_node(3)
    cluster.start_node(3)
    cluster.sql(1, "update accounts set touched = touched + 1")
    settle(cluster)
    cluster.sql(0, "delete from shardman.settings where name = 'failover_after'")
    assert picture == cluster.sql(
        0, "select part_name, owner, prv from shardman.partitions order by 1, 2"
    )


def test_a_link_breaks_between_living_nodes(cluster: Cluster, bank: Bank) -> None:
    """Writers wait for a replica that hears nothing, and go on without it; it catches up later."""
    src, dest = cluster.sql(
        0,
        "select p.owner, r.owner from shardman.partitions p join shardman.partitions r using (part_name)"
        " where p.prv is null and r.prv is not null limit 1",
    )[0]
    apply_worker = "select pid from pg_stat_subscription where subname ~ %s and pid is not null"
    pid = cluster.value(dest, apply_worker, (f"^shardman_[a-z0-9]{{6}}_{src}_{dest}$",))
    os.kill(pid, signal.SIGSTOP)
    try:
        cluster.sql(src, "update accounts set touched = touched + 1")
        left = cluster.sql(0, "select owner from shardman.partitions where stale_since is not null")
        assert {r[0] for r in left} == {dest}
        assert cluster.sql(0, "select 1 from shardman.cmd_log where cmd_type = 'suspend_replicas'")
    finally:
        os.kill(pid, signal.SIGCONT)
    settle(cluster)


def test_a_living_worker_is_removed_by_force(cluster: Cluster, bank: Bank) -> None:
    added = cluster.add_worker()
    for table in ("accounts", "marks"):
        assert cluster.cmd("select shardman.rebalance(%s)", (table,)).status == "done"
    assert cluster.value(0, "select count(*) from shardman.partitions where owner = 3") > 0
    rows = cluster.value(1, "select sum(touched) from accounts")
    work = [bank.increment]
    with Load([cluster.dsn(1), cluster.dsn(added)], work, workers=4, reconnect=True) as load:
        time.sleep(0.5)
        done = cluster.cmd("select shardman.rm_node(3, true)")
        assert done.status == "success", done
        assert "Replicas take over" in (done.result or "")
        assert "Cannot be reached" not in (done.result or "")
        time.sleep(0.5)
    assert load.errors == []
    unknown = sum(t.unknown for t in load.tallies)
    for node in (1, 2, added):
        touched = cluster.value(node, "select sum(touched) from accounts")
        assert rows + load.added <= touched <= rows + load.added + unknown
    assert cluster.value(3, "show synchronous_standby_names") == ""
    settle(cluster)


def test_refused(cluster: Cluster, bank: Bank) -> None:
    done = cluster.cmd("select shardman.failover(1)")
    assert done.status == "failed" and "node 1 answers" in (done.error or "")
