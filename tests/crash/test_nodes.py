"""kill -9 of the shardlord before and after every step of adding and removing a node."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from crash.stops import Point, armed, kill_shardlord, points, sample, wait_until_stopped
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster


@pytest.fixture(scope="module")
def one(module_cluster_factory: Callable[..., Cluster]) -> Cluster:
    cluster = module_cluster_factory(workers=1)
    cluster.sql(1, "create table t (id int primary key, v text)")
    cluster.sql(1, "insert into t select i, 'v' from generate_series(1, 100) i")
    done = cluster.cmd("select shardman.create_hash_partitions(1, 't', 'id', 3)")
    assert done.status == "success", done
    return cluster


@pytest.fixture(scope="module")
def spare(one: Cluster) -> str:
    """A server that comes and goes."""
    return one.add_server()


def member(cluster: Cluster) -> int | None:
    """The spare server's node id while it is a member."""
    rows = cluster.sql(
        0, "select id from shardman.nodes where worker_status <> 'removed' and id > 1"
    )
    return int(rows[0][0]) if rows else None


def add(cluster: Cluster, spare: str) -> int:
    return cluster.submit("select shardman.add_node(%s)", (spare,))


def remove(cluster: Cluster) -> int:
    return cluster.submit("select shardman.rm_node(%s)", (member(cluster),))


def undisturbed(cluster: Cluster, cmd: int) -> list[Point]:
    done = cluster.wait(cmd)
    assert done.status == "success", done
    with cluster.connect(0) as lord:
        return points(lord, cmd)


def settled(cluster: Cluster, cmd: int) -> None:
    done = cluster.wait(cmd, 60)
    assert done.status == "success", done
    assert cluster.value(1, "select count(*) from t") == 100
    assert check(cluster.lord_dsn, data=True, patience=20) == []


def crash(cluster: Cluster, cmd_type: str, point: Point, submit: Callable[[], int]) -> int:
    with armed(cluster.lord_dsn, cmd_type, point) as holder:
        cmd = submit()
        wait_until_stopped(holder, cmd)
        kill_shardlord(cluster, holder)
    cluster.start_lord()
    return cmd


@pytest.mark.timeout(600)
def test_the_shardlord_is_killed_at_every_step_of_add_node(one: Cluster, spare: str) -> None:
    every = undisturbed(one, add(one, spare))
    for point in sample(every, 9):
        assert one.wait(remove(one)).status == "success"
        settled(one, crash(one, "add_node", point, lambda: add(one, spare)))
        node = member(one)
        assert node is not None
        with psycopg.connect(spare) as new:
            assert new.execute("select count(*) from t").fetchone() == (100,)


@pytest.mark.timeout(600)
def test_the_shardlord_is_killed_at_every_step_of_rm_node(one: Cluster, spare: str) -> None:
    every = undisturbed(one, remove(one))
    for point in sample(every, 9, start=2):
        assert one.wait(add(one, spare)).status == "success"
        settled(one, crash(one, "rm_node", point, lambda: remove(one)))
        assert member(one) is None
    with psycopg.connect(spare) as gone:
        left = gone.execute(
            "select (select count(*) from pg_subscription) + (select count(*) from pg_publication)"
            " + (select count(*) from pg_replication_slots)"
            " + (select count(*) from pg_namespace where nspname = 'shardman')"
        ).fetchone()
        assert left == (0,)
