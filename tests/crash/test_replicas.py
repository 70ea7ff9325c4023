"""kill -9 of the shardlord before and after every step of the commands on replicas."""

from __future__ import annotations

import time

import pytest

from crash.stops import Point, armed, kill_shardlord, points, sample, wait_until_stopped
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster

ROWS = 200
OWNERS = "select owner from shardman.partitions where part_name = 't_0' order by prv nulls first"


@pytest.fixture(scope="module")
def ready(cluster: Cluster) -> Cluster:
    cluster.sql(1, "create table t (id int primary key, v text)")
    cluster.sql(1, "insert into t select i, 'v' || i from generate_series(1, %s) i", (ROWS,))
    done = cluster.cmd("select shardman.create_hash_partitions(1, 't', 'id', 2)")
    assert done.status == "success", done
    return cluster


def copies(cluster: Cluster) -> list[int]:
    """Nodes with copies of t_0, the primary's first."""
    return [r[0] for r in cluster.sql(0, OWNERS)]


def free(cluster: Cluster) -> int:
    return min({1, 2, 3} - set(copies(cluster)))


def next_command(cluster: Cluster, cmd_type: str) -> str:
    """A command of this type on t_0 that can be done now."""
    if cmd_type == "create_replica":
        if len(copies(cluster)) > 1:
            undisturbed(cluster, f"select shardman.rm_replica('t_0', {copies(cluster)[1]})")
        return f"select shardman.create_replica('t_0', {free(cluster)})"
    if len(copies(cluster)) == 1:
        undisturbed(cluster, f"select shardman.create_replica('t_0', {free(cluster)})")
    if cmd_type == "set_sync":
        undisturbed(cluster, "select shardman.set_sync('t', false)")
        return "select shardman.set_sync('t', true)"
    if cmd_type == "drain_node":
        node = copies(cluster)[0]
        undisturbed(cluster, f"select shardman.drain_node({free(cluster)}, false)")
        return f"select shardman.drain_node({node})"
    if cmd_type == "rm_replica":
        return f"select shardman.rm_replica('t_0', {copies(cluster)[1]})"
    return f"select shardman.move_part('t_0', {free(cluster)})"


def undisturbed(cluster: Cluster, command: str) -> int:
    cmd = cluster.submit(command.encode())
    done = cluster.wait(cmd)
    assert done.status in ("success", "done"), done
    return cmd


def journal(cluster: Cluster, cmd_type: str) -> list[Point]:
    cmd = undisturbed(cluster, next_command(cluster, cmd_type))
    with cluster.connect(0) as lord:
        return points(lord, cmd)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("cmd_type", "stride"),
    [
        ("create_replica", 9),
        ("rm_replica", 5),
        ("move_part", 14),
        ("set_sync", 7),
        ("drain_node", 2),
    ],
)
def test_the_shardlord_is_killed_at_every_step(ready: Cluster, cmd_type: str, stride: int) -> None:
    for point in sample(journal(ready, cmd_type), stride, start=1):
        command = next_command(ready, cmd_type)
        with armed(ready.lord_dsn, cmd_type, point) as holder:
            cmd = ready.submit(command.encode())
            wait_until_stopped(holder, cmd)
            kill_shardlord(ready, holder)
        ready.start_lord()
        done = ready.wait(cmd, 60)
        assert done.status in ("success", "done"), (point, done)
        ready.sql(2, "update t set v = v || '.'")
        assert check(ready.lord_dsn, data=True, patience=40) == [], point


@pytest.mark.timeout(900)
@pytest.mark.parametrize("victim", ["primary", "replica"])
def test_a_server_is_killed_at_every_step_of_create_replica(ready: Cluster, victim: str) -> None:
    for point in sample(journal(ready, "create_replica"), 14, start=8):
        command = next_command(ready, "create_replica")
        node = copies(ready)[0] if victim == "primary" else free(ready)
        with armed(ready.lord_dsn, "create_replica", point) as holder:
            cmd = ready.submit(command.encode())
            wait_until_stopped(holder, cmd)
            ready.kill_node(node)
        time.sleep(0.2)
        ready.start_node(node)
        assert ready.wait(cmd, 60).status in ("success", "failed")
        assert check(ready.lord_dsn, data=True, patience=40) == [], point
        ready.sql(2, "update t set v = v || '.'")
