"""Channels as former versions made them, in one phase: status names them, and they are made anew in two."""

from __future__ import annotations

import pytest

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


def test_it_is_named_and_made_anew(acc: Cluster) -> None:
    assert acc.sql(1, PROBLEM) == []
    ((name, two),) = acc.sql(1, SLOT)
    assert two
    # As of a former version: the slot in one phase under a subscription that does not ask for two.
    if acc.value(2, "select current_setting('server_version_num')::int") < 180000:
        pytest.skip("two_phase of a subscription is changed from PostgreSQL 18 on only")
    # Which would have it made anew for being disabled.
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
    acc.sql(2, f'alter subscription "{name}" set (two_phase = false)')
    acc.sql(2, f'alter subscription "{name}" enable')
    acc.start_lord()
    assert acc.sql(1, SLOT) == [(name, False)]
    ((hint,),) = acc.sql(1, PROBLEM)
    assert "shardman suspend-replicas 1 2" in hint
    assert acc.cmd("select shardman.suspend_replicas(1, 2)").status in ("success", "done")
    eventually(
        "the channel has two phases",
        lambda: acc.sql(1, SLOT),
        until=lambda rows: rows == [(name, True)],
        seconds=60,
    )
    eventually("its replicas follow", lambda: acc.sql(1, PROBLEM), until=lambda rows: rows == [])
    assert check(acc.lord_dsn, data=True, patience=60) == []
