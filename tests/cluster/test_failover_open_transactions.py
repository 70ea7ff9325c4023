"""Whoever keeps a transaction open keeps no partition of a dead node from being taken over."""

from __future__ import annotations

import time

import psycopg

from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually


def first_write(cluster: Cluster, node: int, key: int, seconds: float) -> float:
    """How long it takes until a client of a node that tries again can write to a row."""

    def write() -> bool:
        with cluster.connect(node, connect_timeout=3) as conn:
            conn.execute("update acc set v = v + 1 where id = %s", (key,))
        return True

    begun = time.monotonic()
    eventually(
        f"node {node} writes to row {key}",
        write,
        seconds=seconds,
        every=0.05,
        tolerate=psycopg.Error,
    )
    return time.monotonic() - begun


def test_partitions_go_on(cluster: Cluster) -> None:
    cluster.sql(1, "create table acc (id int primary key, v int not null default 0)")
    cluster.sql(1, "insert into acc select i from generate_series(1, 200) i")
    for call in (
        "select shardman.create_hash_partitions(1, 'acc', 'id', 6)",
        "select shardman.set_replevel('acc', 1)",
    ):
        assert cluster.cmd(call).status in ("success", "done")
    dead = 2
    heir_of = dict(
        cluster.sql(
            0,
            "select part_name, nxt from shardman.partitions where prv is null and owner = %s",
            (dead,),
        )
    )
    part, heir = next(iter(heir_of.items()))
    other = 4 - heir
    key = cluster.value(dead, f"select min(id) from {part}_data")
    # They have read every partition, and hold locks on the partitions.
    sleepers = [psycopg.connect(cluster.dsn(n)) for n in (heir, other)]
    for sleeper in sleepers:
        sleeper.execute("set idle_in_transaction_session_timeout = 0")
        sleeper.execute("select count(*) from acc")
    # A report on the replica, by its own name.
    reader = psycopg.connect(cluster.dsn(heir))
    reader.execute(f"select count(*) from {part}_data")
    # One that has read nothing of it is in nobody's way, and stays.
    bystander = psycopg.connect(cluster.dsn(other))
    bystander.execute("select pg_current_xact_id()")

    cluster.kill_node(dead)
    for node in (heir, other):
        assert first_write(cluster, node, key, 20) < 20
    assert bystander.execute("select 1").fetchone() == (1,)

    for conn in (*sleepers, reader, bystander):
        conn.close()
    cluster.start_node(dead)
    stale = "select count(*) from shardman.partitions where stale_since is not null"
    eventually("no copy is stale", lambda: cluster.value(0, stale), until=lambda n: n == 0)
    assert check(cluster.lord_dsn, data=True, patience=60) == []
