"""An application prepares transactions in which it has only locked, on nodes with replicas.

PostgreSQL before August 2026 tells subscribers in two phases to commit such a one without having told them to
prepare it."""

from __future__ import annotations

import time

import psycopg
import pytest

from shardman.nodes.invariants import check
from shardman.testing import eventually
from shardman.testing.cluster import Cluster
from shardman.testing.plugin import ClusterFactory

#: A commit may wait for as long as a channel that stands is noticed, and its worker begun anew.
SOON_S = 8.0


@pytest.fixture(scope="module")
def acc(module_cluster_factory: ClusterFactory) -> Cluster:
    cluster = module_cluster_factory(workers=2)
    cluster.sql(1, "create table acc (id int primary key, n int not null)")
    cluster.sql(1, "insert into acc select i, 0 from generate_series(1, 100) i")
    for command in (
        "select shardman.create_hash_partitions(1, 'acc', 'id', 4)",
        "select shardman.set_replevel('acc', 1)",
    ):
        assert cluster.cmd(command).status in ("success", "done")
    return cluster


def prepare(acc: Cluster, node: int, *statements: str) -> None:
    with psycopg.connect(acc.dsn(node), autocommit=True) as conn:
        for statement in ("begin", *statements, "prepare transaction 'its'"):
            conn.execute(statement.encode())


def mine(acc: Cluster, node: int) -> str:
    """The data table of a partition whose primary is there."""
    found = "select min(part_name) from shardman.partitions where owner = %s and prv is null"
    return f"{acc.value(0, found, (node,))}_data"


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize(
    "locks",
    [
        ["lock table {} in access exclusive mode"],
        ["select from {} for update"],
        ["savepoint s", "select from {} for share", "release s"],
        [],
    ],
)
def test_the_channel_goes_on(acc: Cluster, locks: list[str], end: str) -> None:
    table = mine(acc, 1)
    prepare(acc, 1, *(each.format(table) for each in locks))
    begun = time.monotonic()
    acc.sql(1, f"{end} prepared 'its'")
    acc.sql(1, f"update {table} set n = n + 1")
    assert time.monotonic() - begun < SOON_S
    assert (
        acc.value(0, "select count(*) from shardman.partitions where stale_since is not null") == 0
    )
    assert check(acc.lord_dsn, data=True, patience=20) == []
    eventually(
        "nothing is left prepared",
        lambda: acc.value(2, "select count(*) from pg_prepared_xacts"),
        until=lambda left: left == 0,
    )


def test_several_at_once_and_with_others_that_have_written(acc: Cluster) -> None:
    table = mine(acc, 1)
    ids = [row[0] for row in acc.sql(1, f"select id from {table} order by id limit 4")]
    with psycopg.connect(acc.dsn(1), autocommit=True) as conn:
        for n, row in enumerate(ids):
            write = (
                "update {} set n = 77 where id = {}"
                if n % 2
                else "select from {} where id = {} for update"
            )
            for statement in ("begin", write.format(table, row), f"prepare transaction 'p{n}'"):
                conn.execute(statement.encode())
        for n in range(len(ids)):
            conn.execute(f"commit prepared 'p{n}'".encode())
    for row in ids[1::2]:
        assert acc.value(1, f"select n from {table} where id = {row}") == 77
    assert (
        acc.value(0, "select count(*) from shardman.partitions where stale_since is not null") == 0
    )
    assert check(acc.lord_dsn, data=True, patience=20) == []


def test_a_decision_that_a_replica_does_not_know_is_forgotten(acc: Cluster) -> None:
    """A channel that is made anew brings none of before."""
    gid = acc.value(
        1,
        "select format('shardman_%%s_x1_7_%%s', cluster, repeat('a', 32)) from shardman.local",
        (),
    )
    known = "select count(*) from shardman.client_decisions where gid = %s"
    acc.sql(
        1, "insert into shardman.client_decisions (gid, role) values (%s, current_user)", (gid,)
    )
    eventually("it arrives", lambda: acc.value(2, known, (gid,)), until=lambda n: n == 1)
    for node in (2, 1):
        acc.sql(node, "delete from shardman.client_decisions where gid = %s", (gid,))
    acc.sql(1, f"update {mine(acc, 1)} set n = n + 1")
    if acc.value(2, "select current_setting('server_version_num')::int >= 180000"):
        eventually(
            "the server has counted it",
            lambda: acc.value(
                2, "select sum(confl_delete_missing) from pg_stat_subscription_stats"
            ),
            until=lambda n: n > 0,
        )
    assert acc.sql(2, "select src, code, fault from shardman.subscriber_faults()") == []
    acc.sql(1, f"update {mine(acc, 1)} set n = n + 1")
    assert check(acc.lord_dsn, data=True, patience=20) == []
