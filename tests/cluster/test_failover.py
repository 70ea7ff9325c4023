"""A node dies: its partitions go on elsewhere, and nothing that was acknowledged is lost."""

from __future__ import annotations

import os
import signal
import time

import pytest

from shardman.nodes import status
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.load import Bank, Load, make_bank
from shardman.testing.waiting import eventually

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
    last = (
        "select status::text, result from shardman.commands where cmd_type = 'failover'"
        " and opts = %s order by id desc limit 1"
    )
    rows = eventually(
        f"node {node} is failed over",
        lambda: cluster.sql(0, last, (f"node_id={node}, accept_data_loss=false",)),
        until=lambda rows: rows and rows[0][0] == "success",
        seconds=seconds,
        after=lambda: cluster.sql(0, "select * from shardman.commands order by id desc limit 5"),
    )
    return str(rows[0][1])


def settle(cluster: Cluster, seconds: float = 60) -> None:
    """Until nothing is left to be done for a node that was away."""
    stale = "select count(*) from shardman.partitions where stale_since is not null"
    eventually(
        "no copy is stale",
        lambda: cluster.value(0, stale),
        until=lambda n: n == 0,
        seconds=seconds,
    )
    assert check(cluster.lord_dsn, data=True, patience=seconds) == []


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
        eventually(
            "a hundred more writes",
            lambda: load.acknowledged,
            until=lambda writes: writes > acknowledged + 100,
            seconds=30,
        )
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
    query = (
        "select result from shardman.commands where cmd_type = 'create_replica' and parent is null"
        " and status = 'success'"
    )
    said = eventually(
        "two replicas follow", lambda: cluster.sql(0, query), until=lambda rows: len(rows) >= 2
    )
    assert all("old copy" in result for (result,) in said)
    stale = "select owner from shardman.partitions where stale_since is not null"
    assert {r[0] for r in cluster.sql(0, stale)} == {2}  # type: ignore[arg-type]


def test_replicas_are_made_again(cluster: Cluster, bank: Bank) -> None:
    """Elsewhere, when the node stays away."""
    cluster.sql(0, "insert into shardman.settings values ('rebuild_after', '1')")
    count = (
        "select count(*) from shardman.partitions"
        " where prv is not null and stale_since is null and relation = 'accounts'"
    )
    eventually(
        "every partition has its replica", lambda: cluster.value(0, count), until=lambda n: n >= 6
    )
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
        assert done.data is not None and done.data["promoted"]
        assert set(done.data["promoted"].values()) <= {1, 2, added}
        assert "unreachable" not in done.data
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
    assert (done.status, done.code) == ("failed", "node_alive")
    assert "node 1 answers" in (done.error or "")


def synchronous(cluster: Cluster, node: int) -> int:
    """Commits wait for so many replicas on a node."""
    query = "select count(*) from shardman.status_copies where node = %s and synchronous"
    return int(cluster.value(0, query, (node,)))


def waited_for(cluster: Cluster, by: int, node: int) -> bool:
    cluster_id = cluster.value(0, "select cluster from shardman.local")
    names = str(cluster.value(by, "show synchronous_standby_names"))
    return f"shardman_{cluster_id}_{by}_{node}" in names


def test_a_planned_restart_is_no_failover(cluster: Cluster, bank: Bank) -> None:
    """Nobody waits for the node, nobody takes over from it, and its replicas follow again as they were."""
    picture = "select part_name, owner, prv, stale_since from shardman.partitions order by 1, 2"
    failovers = "select count(*) from shardman.status_failovers"
    before, known = cluster.sql(0, picture), cluster.value(0, failovers)
    wanted = synchronous(cluster, 2)
    assert wanted > 0
    wrong = status.read(cluster.lord_dsn).problems
    assert cluster.cmd("select shardman.maintain(2)").status == "success"
    assert not waited_for(cluster, 1, 2) and synchronous(cluster, 2) == 0
    (row,) = cluster.sql(0, "select away_until > now() from shardman.status_nodes where id = 2")
    assert row == (True,)
    cluster.sql(0, "insert into shardman.settings values ('failover_after', '1')")
    cluster.stop_node(2)
    on_1 = "select part_name from shardman.partitions where owner = 1 and prv is null and relation = 'marks'"
    part = cluster.value(0, on_1 + " limit 1")
    begun = time.monotonic()
    while time.monotonic() - begun < 3:  # Long after failover_after.
        written = time.monotonic()
        cluster.sql(1, f"update {part} set id = id")
        assert time.monotonic() - written < 3
    # It is shown, and not wrong.
    seen = status.read(cluster.lord_dsn)
    assert seen.problems == wrong
    (away,) = [n for n in seen.nodes if n.id == 2]
    assert away.why is not None and away.away_until is not None
    refused = cluster.cmd("select shardman.maintain(2, maintain => false)")
    assert refused.status == "failed" and refused.code == "node_unreachable"
    cluster.sql(0, "delete from shardman.settings where name = 'failover_after'")
    cluster.start_node(2)
    ended = cluster.cmd("select shardman.maintain(2, maintain => false)")
    assert ended.status == "success", ended
    assert waited_for(cluster, 1, 2) and synchronous(cluster, 2) == wanted
    assert cluster.sql(0, picture) == before
    assert cluster.value(0, failovers) == known
    assert check(cluster.lord_dsn, data=True, patience=30) == []


def test_maintenance_ends_by_itself_when_the_node_is_back(cluster: Cluster, bank: Bank) -> None:
    lord = cluster.cmd("select shardman.maintain(0)")
    assert (lord.status, lord.code) == ("failed", "node_is_lord")
    assert "shardman promote-lord" in str(lord.error)
    assert cluster.cmd("select shardman.maintain(2)").status == "success"
    cluster.stop_node(2)
    # An administrator does not wait for it: what is granted meanwhile reaches the node when it is back.
    for node in (0, 1, 3):
        with cluster.connect(node, options="-c shardman.ddl=here") as conn:
            conn.execute("grant update on marks to public")
    cluster.start_node(2)
    eventually(
        "its replicas are waited for again",
        lambda: synchronous(cluster, 2),
        until=lambda copies: copies > 0,
        seconds=30,
    )
    assert waited_for(cluster, 1, 2)
    may = "select has_table_privilege('public', 'marks_0', 'update')"
    eventually("it has the rights of the others", lambda: cluster.value(2, may))


def test_who_stays_away_longer_is_replaced(cluster: Cluster, bank: Bank) -> None:
    assert cluster.cmd("select shardman.maintain(2, 2)").status == "success"
    cluster.stop_node(2)
    failed_over(cluster, 2, 30)
    eventually(
        "maintenance is over",
        lambda: cluster.value(0, "select away_until from shardman.nodes where id = 2"),
        until=lambda until: until is None,
    )
