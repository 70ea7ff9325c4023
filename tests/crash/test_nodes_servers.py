"""kill -9 of the lord's server, and of the node itself, while a node is added and removed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import psycopg
import pytest

from cluster.pictures import picture
from crash.stops import Point, armed, points, wait_until_stopped
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

ROWS = 100


@pytest.fixture(scope="module")
def ready(module_cluster_factory: Callable[..., Cluster]) -> Cluster:
    cluster = module_cluster_factory(workers=2)
    cluster.sql(1, "create table t (id int primary key, v text)")
    cluster.sql(1, "insert into t select i, 'v' || i from generate_series(1, %s) i", (ROWS,))
    assert (
        cluster.cmd("select shardman.create_hash_partitions(1, 't', 'id', 4)").status == "success"
    )
    return cluster


@pytest.fixture(scope="module")
def spare(ready: Cluster) -> str:
    """A server that is no node; its number in the local cluster is 3."""
    return ready.add_server()


def add(cluster: Cluster, dsn: str) -> int:
    return cluster.submit("select shardman.add_node(%s)", (dsn,))


def newest(cluster: Cluster) -> int:
    """The node that was added last, if it is a member."""
    return int(
        cluster.value(
            0,
            "select coalesce(max(id) filter (where worker_status = 'active'), 0)"
            " from shardman.nodes where id > 2",
        )
    )


def rm(cluster: Cluster) -> int:
    return cluster.submit("select shardman.rm_node(%s)", (newest(cluster),))


def undisturbed(cluster: Cluster, dsn: str) -> tuple[list[Point], list[Point]]:
    """The instants of both commands, taken from their journals."""
    with cluster.connect(0) as lord:
        added = add(cluster, dsn)
        assert cluster.wait(added).status == "success"
        removed = rm(cluster)
        assert cluster.wait(removed).status == "success"
        return points(lord, added), points(lord, removed)


def settled(cluster: Cluster, cmd: int, dsn: str) -> str:
    """It happened or it did not; nothing is left behind; returns the command's status."""
    done = cluster.wait(cmd, 60)
    assert done.status in ("success", "failed"), done
    for node in (0, 1, 2):
        assert cluster.value(node, "select count(*) from t") == ROWS
    assert check(cluster.lord_dsn, data=True, patience=20) == []
    if not newest(cluster):
        eventually(
            "nothing of ours is left",
            lambda: ours(dsn),
            until=lambda left: left == set(),
            seconds=20,
        )
    return done.status


def ours(dsn: str) -> set[str]:
    """What must not be in a database that is no node."""
    try:
        found = picture(dsn)
    except psycopg.Error as error:  # it goes at this very moment
        return {str(error)}
    return {
        each
        for each in found
        if each.startswith(("schema shardman", "subscription", "slot", "publication", "prepared"))
    }


# A tenth of the instants, every one when there is time.
EVERY = 1 if os.environ.get("SHARDMAN_LONG") else 10


@pytest.mark.timeout(600)
@pytest.mark.parametrize("victim", [0, 3], ids=["lord", "node"])
def test_a_server_is_killed_at_every_step(ready: Cluster, spare: str, victim: int) -> None:
    adding, removing = undisturbed(ready, spare)
    for point in adding[victim % EVERY :: EVERY]:
        with armed(ready.lord_dsn, "add_node", point) as holder:
            cmd = add(ready, spare)
            wait_until_stopped(holder, cmd)
            ready.kill_node(victim)
        time.sleep(0.2)
        ready.start_node(victim)
        settled(ready, cmd, spare)
        if newest(ready):
            assert ready.wait(rm(ready)).status == "success"
    for point in removing[::EVERY]:
        assert ready.wait(add(ready, spare)).status == "success"
        with armed(ready.lord_dsn, "rm_node", point) as holder:
            cmd = rm(ready)
            wait_until_stopped(holder, cmd)
            ready.kill_node(victim)
        time.sleep(0.2)
        ready.start_node(victim)
        settled(ready, cmd, spare)
        if newest(ready):
            assert ready.wait(rm(ready)).status == "success"
