"""What an application has prepared on one node, when that node dies for good, and when it is back."""

from __future__ import annotations

import psycopg
import pytest

from shardman.nodes.invariants import check
from shardman.testing import eventually
from shardman.testing.cluster import Cluster
from shardman.testing.plugin import ClusterFactory

LOST = (
    "select gid, role, ended_at is not null from shardman.lost_parts where node = %s and gid = %s"
)


@pytest.fixture(scope="module")
def acc(module_cluster_factory: ClusterFactory) -> Cluster:
    cluster = module_cluster_factory(workers=3)
    cluster.sql(1, "create table acc (id int primary key, n int not null)")
    cluster.sql(1, "insert into acc select i, 0 from generate_series(1, 100) i")
    for command in (
        "select shardman.create_hash_partitions(1, 'acc', 'id', 6)",
        "select shardman.set_replevel('acc', 1)",
    ):
        assert cluster.cmd(command).status in ("success", "done")
    cluster.sql(0, "insert into shardman.settings values ('failover_after', '2')")
    return cluster


def prepare(acc: Cluster, node: int, gid: str) -> tuple[str, int]:
    """Changes a row whose primary is there; the partition's data table and the row's id."""
    found = "select min(part_name) from shardman.partitions where owner = %s and prv is null"
    table = f"{acc.value(0, found, (node,))}_data"
    row = acc.value(node, f"select min(id) from {table}")
    with psycopg.connect(acc.dsn(node), autocommit=True) as conn:
        for statement in (
            "begin",
            f"update {table} set n = n + 1 where id = {row}",
            f"prepare transaction '{gid}'",
        ):
            conn.execute(statement.encode())
    return table, row


def taken_over(acc: Cluster, node: int) -> None:
    eventually(
        f"others have taken over from node {node}",
        lambda: acc.value(
            0, "select count(*) from shardman.partitions where owner = %s and prv is null", (node,)
        ),
        until=lambda n: n == 0,
        seconds=60,
    )


def settle(acc: Cluster) -> None:
    stale = "select count(*) from shardman.partitions where stale_since is not null"
    eventually("no copy is stale", lambda: acc.value(0, stale), until=lambda n: n == 0, seconds=90)
    for command in ("set_replevel('acc', 1)", "rebalance('acc')"):
        assert acc.cmd(f"select shardman.{command}").status == "done"
    assert check(acc.lord_dsn, data=True, patience=60) == []


@pytest.mark.parametrize("seen", [True, False], ids=["seen before", "just before"])
def test_it_has_one_outcome_everywhere_and_is_told_by_name(acc: Cluster, seen: bool) -> None:
    node, gid = (1, "it''s 1") if seen else (2, "2")
    name = gid.replace("''", "'")
    if not seen:
        acc.stop_lord(kill=True)
    _, row = prepare(acc, node, gid)
    if seen:
        eventually(
            "the shardlord has seen it",
            lambda: acc.sql(0, "select gid from shardman.prepared_seen where node = %s", (node,)),
            until=lambda found: found == [(name,)],
        )
    acc.kill_node(node)
    if not seen:
        acc.start_lord()
    taken_over(acc, node)
    through = node % 3 + 1
    eventually(
        "the row can be written elsewhere",
        lambda: acc.sql(through, "update acc set n = 50 where id = %s returning n", (row,)),
        until=lambda rows: rows == [(50,)],
        seconds=60,
        tolerate=psycopg.Error,
    )
    if seen:
        assert [r[0] for r in acc.sql(0, LOST, (node, name))] == [name]
        told = "select error from shardman.cmd_log where cmd_type = 'failover' order by id desc limit 1"
        result = "select result from shardman.cmd_log where cmd_type = 'failover' order by id desc limit 1"
        eventually(
            "the failover tells of it",
            lambda: f"{acc.value(0, told)} {acc.value(0, result)}",
            until=lambda text: f"'{gid}'" in text,
            seconds=30,
        )
    acc.start_node(node)
    eventually(
        "it is rolled back on its node, too",
        lambda: acc.value(node, "select count(*) from pg_prepared_xacts where gid = %s", (name,)),
        until=lambda n: n == 0,
        seconds=60,
        tolerate=psycopg.Error,
    )
    with pytest.raises(psycopg.errors.UndefinedObject):
        acc.sql(node, f"commit prepared '{gid}'")
    eventually(
        "that is written down",
        lambda: acc.sql(0, LOST, (node, name)),
        until=lambda rows: [(r[0], r[2]) for r in rows] == [(name, True)],
    )
    problems = [row[0] for row in acc.sql(0, "select subject from shardman.cluster_problems")]
    assert any(f"'{gid}'" in subject and f"node {node}" in subject for subject in problems), (
        problems
    )
    assert acc.value(through, "select n from acc where id = %s", (row,)) == 50
    settle(acc)
