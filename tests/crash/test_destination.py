"""The destination of a move dies between the switch and the end: the partition is its, and it is not there."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest

from crash.stops import armed, points, wait_until_stopped
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

ROWS = 200

pytestmark = pytest.mark.server


def make(cluster: Cluster, replevel: int) -> tuple[int, int]:
    """A table of one partition; its primary's node, and one without a copy."""
    cluster.sql(0, "insert into shardman.settings values ('rebuild_after', '3600')")
    cluster.sql(1, "create table t (id int primary key, v int not null default 0)")
    cluster.sql(1, "insert into t select generate_series(1, %s)", (ROWS,))
    done = cluster.cmd("select shardman.create_hash_partitions(1, 't', 'id', 1)")
    assert done.status == "success", done
    if replevel:
        assert cluster.cmd("select shardman.set_replevel('t', %s)", (replevel,)).status == "done"
    owners = [
        r[0]
        for r in cluster.sql(0, "select owner from shardman.partitions order by prv nulls first")
    ]
    return owners[0], min({1, 2, 3} - set(owners))


def move_and_kill(cluster: Cluster, src: int, dest: int) -> int:
    """A move whose destination is killed before it is released; the command's id."""
    there = cluster.submit("select shardman.move_part('t_0', %s)", (dest,))
    assert cluster.wait(there).status == "success"
    back = cluster.submit("select shardman.move_part('t_0', %s)", (src,))
    assert cluster.wait(back).status == "success"
    with cluster.connect(0) as lord:
        point = next(p for p in points(lord, there) if p.title == f"release node {dest}")
    with armed(cluster.lord_dsn, "move_part", point) as holder:
        cmd = cluster.submit("select shardman.move_part('t_0', %s)", (dest,))
        wait_until_stopped(holder, cmd)
        cluster.kill_node(dest)
    return cmd


def test_without_a_replica_it_waits_for_its_node() -> None:
    with closing(Cluster(workers=3)) as cluster:
        src, dest = make(cluster, 0)
        other = 6 - src - dest
        done = cluster.wait(move_and_kill(cluster, src, dest))
        assert done.status == "success", done
        assert f"Left for later: release node {dest}" in (done.result or "")
        # The old copy is not dropped before the new one is in use.
        aside = "select count(*) from pg_class where relname like 't_0_aside%%' and relkind = 'r'"
        assert cluster.value(src, aside) == 1
        for node in (src, other):
            with pytest.raises(psycopg.Error):
                cluster.sql(node, "select count(*) from t")
        cluster.start_node(dest)
        eventually(
            "its rows are there again",
            lambda: cluster.value(other, "select count(*) from t"),
            until=lambda rows: rows == ROWS,
            tolerate=psycopg.Error,
        )
        assert check(cluster.lord_dsn, data=True, patience=40) == []
        assert cluster.value(src, aside) == 0


def test_its_replica_takes_over() -> None:
    with closing(Cluster(workers=3)) as cluster:
        src, dest = make(cluster, 1)
        replica = 6 - src - dest
        cluster.sql(replica, "update t set v = 7 where id = 7")
        assert cluster.wait(move_and_kill(cluster, src, dest)).status == "success"

        def write() -> bool:
            cluster.sql(src, "update t set v = v + 1 where id = 7")
            return True

        eventually("it is written to again", write, tolerate=psycopg.Error)
        assert cluster.sql(0, "select owner from shardman.partitions where prv is null") == [
            (replica,)
        ]
        assert cluster.value(src, "select v from t where id = 7") == 8
        cluster.start_node(dest)
        assert check(cluster.lord_dsn, data=True, patience=60) == []
        assert cluster.value(dest, "select v from t where id = 7") == 8
        assert cluster.sql(dest, "select part_name from shardman.set_aside") == [("t_0",)]
