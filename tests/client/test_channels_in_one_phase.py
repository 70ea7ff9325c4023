"""Channels as former versions made them, in one phase: they get two, or status says how they do."""

from __future__ import annotations

import pytest
from psycopg import sql

from shardman.nodes.invariants import check
from shardman.testing import eventually
from shardman.testing.cluster import Cluster
from shardman.testing.plugin import ClusterFactory

PROBLEM = (
    "select hint from shardman.cluster_problems where subject = 'channel from node 1 to node 2'"
)
SLOT = r"select slot_name::text, two_phase from pg_replication_slots where slot_name like 'shardman\_%\_1\_2'"


@pytest.fixture(scope="module")
def acc(module_cluster_factory: ClusterFactory) -> Cluster:
    cluster = module_cluster_factory(workers=2)
    cluster.sql(0, "insert into shardman.settings values ('rebuild_after', '0.5')")
    cluster.sql(1, "create table acc (id int primary key)")
    for command in (
        "select shardman.create_hash_partitions(1, 'acc', 'id', 2)",
        "select shardman.set_replevel('acc', 1)",
    ):
        assert cluster.cmd(command).status in ("success", "done")
    return cluster


def one_phase(acc: Cluster) -> str:
    """The channel is made as one of a former version, while no shardlord acts; its name."""
    ((name, two),) = acc.sql(1, SLOT)
    assert two
    acc.stop_lord()
    acc.sql(2, f'alter subscription "{name}" disable')
    eventually(
        "its worker has ended",
        lambda: acc.value(
            2,
            "select count(*) from pg_stat_subscription where subname = %s and pid is not null",
            (name,),
        ),
        until=lambda n: n == 0,
    )
    if changes(acc):
        acc.sql(2, f'alter subscription "{name}" set (two_phase = false)')
        acc.sql(2, f'alter subscription "{name}" enable')
    else:
        way = acc.value(2, "select subconninfo from pg_subscription where subname = %s", (name,))
        acc.sql(2, f'alter subscription "{name}" set (slot_name = none)')
        acc.sql(2, f'drop subscription "{name}"')
        acc.sql(1, "select pg_drop_replication_slot(%s)", (name,))
        acc.sql(1, "select pg_create_logical_replication_slot(%s, 'pgoutput')", (name,))
        made = sql.SQL(
            "create subscription {0} connection {1} publication {0} with (create_slot = false, slot_name = {0},"
            " copy_data = false, synchronous_commit = 'local')"
        ).format(sql.Identifier(name), way)
        acc.sql(2, made.as_string(None))
    assert acc.sql(1, SLOT) == [(name, False)]
    return str(name)


def changes(acc: Cluster) -> bool:
    """Whether two_phase of a subscription can be changed."""
    return bool(acc.value(2, "select current_setting('server_version_num')::int >= 180000"))


def test_it_gets_two_phases(acc: Cluster) -> None:
    """By itself on PostgreSQL 18, with its replicas in use all the time; before it, by a command."""
    assert acc.sql(1, PROBLEM) == []
    name = one_phase(acc)
    acc.sql(1, "insert into acc select generate_series(1, 20)")
    acc.start_lord()
    if changes(acc):
        replicas = "select part_name, stale_since from shardman.partitions where prv is not null order by 1"
        before = acc.sql(0, replicas)
    else:
        ((hint,),) = acc.sql(1, PROBLEM)
        assert hint.startswith("shardman suspend-replicas 1 2")
        assert acc.cmd("select shardman.suspend_replicas(1, 2)").status in ("success", "done")
    eventually(
        "the channel has two phases",
        lambda: acc.sql(1, SLOT),
        until=lambda rows: rows == [(name, True)],
        seconds=60,
    )
    if changes(acc):
        suspended = "select count(*) from shardman.cmd_log where cmd_type = 'suspend_replicas'"
        assert (acc.sql(0, replicas), acc.value(0, suspended)) == (before, 0)
    eventually("its replicas follow", lambda: acc.sql(1, PROBLEM), until=lambda rows: rows == [])
    key = acc.value(1, "select id from acc where tableoid::regclass::text like '%data' limit 1")
    acc.sql(1, f"begin; update acc set id = id where id = {key}; prepare transaction 'theirs'")
    # It waits for the replica, so it is there.
    copies = "select count(*) from pg_prepared_xacts where gid like 'pg_gid_%'"
    assert acc.value(2, copies) == 1
    acc.sql(1, "commit prepared 'theirs'")
    eventually("it is committed there", lambda: acc.value(2, copies) == 0)
    assert check(acc.lord_dsn, data=True, patience=60) == []
