"""The table whose moves are interrupted."""

from __future__ import annotations

from shardman.testing.cluster import Cluster

ROWS = 300


def make_t(cluster: Cluster) -> Cluster:
    """`t (id, v)` with ROWS rows in three partitions."""
    cluster.sql(1, "create table t (id int primary key, v text)")
    cluster.sql(1, "insert into t select i, 'v' || i from generate_series(1, %s) i", (ROWS,))
    done = cluster.cmd("select shardman.create_hash_partitions(1, 't', 'id', 3)")
    assert done.status == "success", done
    return cluster


def owner(cluster: Cluster) -> int:
    """Of its first partition."""
    return int(cluster.value(0, "select owner from shardman.partitions where part_name = 't_0'"))
