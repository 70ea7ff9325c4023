"""kill -9 of the shardlord before and after every step by which others take over from a dead node, or one
partition whose rows are gone, and of bringing an old copy up to date."""

from __future__ import annotations

import pytest

from crash.stops import (
    Point,
    armed,
    comes_to,
    kill_shardlord,
    points,
    sample,
    wait_until_stopped,
)
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

ROWS = 200
PRIMARY = "select owner from shardman.partitions where part_name = %s and prv is null"
SET = "insert into shardman.settings values (%s, %s) on conflict (name) do update set value = excluded.value"


#: A trigger FOR EACH ROW: it is where the primaries are, and counts what is written there.
COUNTS = """
create function counts() returns trigger language plpgsql as
    'begin new.n := old.n + 1; return new; end';
create trigger counts before update on t for each row execute function counts();
"""


@pytest.fixture(scope="module")
def ready(cluster: Cluster) -> Cluster:
    """Two tables of one partition, copies of both on each of three nodes. No failover but ours."""
    for table in ("t", "u"):
        cluster.sql(1, f"create table {table} (id int primary key, v text, n int default 0)")
        cluster.sql(
            1, f"insert into {table} select i, 'v' || i from generate_series(1, %s) i", (ROWS,)
        )
        if table == "t":
            cluster.sql(1, COUNTS)
        done = cluster.cmd("select shardman.create_hash_partitions(1, %s, 'id', 1)", (table,))
        assert done.status == "success", done
    for name in ("failover_after", "rebuild_after"):
        cluster.sql(0, SET, (name, "3600"))
    whole(cluster)
    return cluster


def whole(cluster: Cluster) -> None:
    """Every partition has all its copies, and they are equal."""
    for table in ("t", "u"):
        assert cluster.cmd("select shardman.set_replevel(%s, 2)", (table,)).status == "done"
    copies = "select count(*) from shardman.partitions where stale_since is null"
    eventually(
        "both partitions have three copies",
        lambda: cluster.value(0, copies),
        until=lambda found: found >= 6,
    )
    cluster.sql(2, "update t set v = v || '.'")
    assert check(cluster.lord_dsn, data=True, patience=40) == []


def killed_at(cluster: Cluster, command: str, cmd_type: str, point: Point) -> bool:
    """Submits a command, kills the shardlord at this point, and sees it done by another one; whether it came
    to the point: which steps there are depends on what the nodes hold."""
    with armed(cluster.lord_dsn, cmd_type, point) as holder:
        cmd = cluster.submit(command.encode())
        came = comes_to(holder, cmd, point)
        if came:
            kill_shardlord(cluster, holder)
    if came:
        cluster.start_lord()
    done = cluster.wait(cmd, 60)
    assert done.status == "success", (point, done)
    return came


def journal(cluster: Cluster, cmd_id: int) -> list[Point]:
    assert cluster.wait(cmd_id).status == "success"
    with cluster.connect(0) as lord:
        return points(lord, cmd_id)


def victim(cluster: Cluster) -> int:
    """The node with the primary of t_0; that of u_0, which has a replica there, is elsewhere."""
    node = int(cluster.value(0, PRIMARY, ("t_0",)))
    if cluster.value(0, PRIMARY, ("u_0",)) == node:
        done = cluster.cmd("select shardman.switch_primary('u_0', %s)", (node % 3 + 1,))
        assert done.status == "success", done
    return node


def served(cluster: Cluster, dead: int | None = None) -> None:
    """The other nodes serve every row, and take writes, for each of which the table's trigger acts once."""
    counted = "select count(*), min(n), max(n) from t"
    for node in {1, 2, 3} - {dead}:
        ((rows, low, high),) = cluster.sql(node, counted)
        assert (rows, high) == (ROWS, low)
        cluster.sql(node, "update t set v = v || '.'")
        assert cluster.sql(node, counted) == [(ROWS, low + 1, low + 1)]


@pytest.mark.timeout(1800)
def test_failover(ready: Cluster) -> None:
    dead = victim(ready)
    ready.kill_node(dead)
    every = journal(ready, ready.submit(b"select shardman.failover(%d)" % dead))
    served(ready, dead)
    ready.start_node(dead)
    whole(ready)
    # What is left to do on the dead node is not done while it is dead.
    done_later = [p for p in every if p.title.startswith("set aside") and p.state == "done"]
    assert done_later
    chosen = sample([p for p in every if p not in done_later], 24, start=6)
    killed = 0
    for point in chosen:
        dead = victim(ready)
        ready.kill_node(dead)
        killed += killed_at(ready, f"select shardman.failover({dead})", "failover", point)
        served(ready, dead)
        ready.start_node(dead)
        whole(ready)
    assert killed >= 0.8 * len(chosen)


def rows_gone(cluster: Cluster) -> str:
    """Drops the rows of t_0's primary, of which all others have replicas; the command that one of them takes
    over by."""
    node = cluster.value(0, PRIMARY, ("t_0",))
    cluster.sql(node, "set shardman.ddl = 'here'; drop table t_0_data")
    return f"select shardman.failover({node}, part_name => 't_0')"


@pytest.mark.timeout(1800)
def test_a_partition_whose_rows_are_gone(ready: Cluster) -> None:
    every = journal(ready, ready.submit(rows_gone(ready).encode()))
    served(ready)
    whole(ready)
    for point in sample(every, len(every), start=len(every) // 2):
        assert killed_at(ready, rows_gone(ready), "failover", point)
        served(ready)
        whole(ready)


@pytest.mark.timeout(1800)
def test_an_old_copy_is_brought_up_to_date(ready: Cluster) -> None:
    every = journal(ready, renewal(ready))
    whole(ready)
    for point in sample(every, 16, start=9):
        with armed(ready.lord_dsn, "create_replica", point) as holder:
            cmd = renewal(ready)
            wait_until_stopped(holder, cmd)
            kill_shardlord(ready, holder)
        ready.start_lord()
        done = ready.wait(cmd, 60)
        assert done.status == "success", (point, done)
        whole(ready)


def renewal(cluster: Cluster) -> int:
    """Leaves a replica of t_0 behind and writes to the others; the command that mends it."""
    src, dest = cluster.sql(
        0,
        "select p.owner, r.owner from shardman.partitions p join shardman.partitions r using (part_name)"
        " where p.part_name = 't_0' and p.prv is null and r.prv is not null limit 1",
    )[0]
    suspended = cluster.submit("select shardman.suspend_replicas(%s, %s)", (src, dest))
    assert cluster.wait(suspended).status == "success"
    cluster.sql(src, "update t set v = v || ','")
    last = "select max(id) from shardman.cmd_log where cmd_type = 'create_replica' and id > %s"
    cmd = eventually(
        "a replica is made again",
        lambda: cluster.value(0, last, (suspended,)),
        seconds=30,
        every=0.05,
    )
    return int(cmd)


@pytest.mark.timeout(1800)
def test_switch_primary(ready: Cluster) -> None:
    every = journal(ready, ready.submit(next_switch(ready).encode()))
    for point in sample(every, 16, start=9):
        assert killed_at(ready, next_switch(ready), "switch_primary", point), point
        ready.sql(1, "update t set v = v || '.'")
        assert check(ready.lord_dsn, data=True, patience=40) == [], point


def next_switch(cluster: Cluster) -> str:
    replica = cluster.value(
        0, "select min(owner) from shardman.partitions where part_name = 't_0' and prv is not null"
    )
    return f"select shardman.switch_primary('t_0', {replica})"
