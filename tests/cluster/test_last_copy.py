"""A replica whose primary cannot be reached may be the last copy: nothing drops it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

pytestmark = pytest.mark.server


def replicate(cluster: Cluster) -> None:
    """A table of 100 rows, each partition with one replica."""
    cluster.sql(1, "create table acc (id int primary key, v int not null default 0)")
    cluster.sql(1, "insert into acc select i from generate_series(1, 100) i")
    for call in (
        "select shardman.create_hash_partitions(1, 'acc', 'id', 6)",
        "select shardman.set_replevel('acc', 1)",
    ):
        assert cluster.cmd(call).status in ("success", "done")


@pytest.fixture
def copies(cluster: Cluster) -> Iterator[tuple[str, int, int]]:
    """A partition, its primary's node, which is down, and its replica's."""
    cluster.sql(0, "insert into shardman.settings values ('failover_after', '3600')")
    replicate(cluster)
    ((part, primary, replica),) = cluster.sql(
        0,
        "select p.part_name, p.owner, p.nxt from shardman.partitions p where p.prv is null limit 1",
    )
    cluster.kill_node(primary)
    yield part, primary, replica
    cluster.start_node(primary)


def test_it_is_kept(cluster: Cluster, copies: tuple[str, int, int]) -> None:
    part, _, replica = copies
    there = f"select count(*) from {part}_data"
    rows = cluster.value(replica, there)
    assert rows > 0

    done = cluster.cmd("select shardman.rm_replica(%s, %s)", (part, replica))
    assert (done.status, done.code) == ("failed", "last_copy")
    assert "may be the last copy" in (done.error or "")
    # What only goes through many of them leaves this one alone.
    assert cluster.cmd("select shardman.set_replevel('acc', 0)").status == "done"
    assert cluster.cmd("select shardman.drain_node(%s)", (replica,)).status == "done"
    assert cluster.value(replica, there) == rows

    # A node that leaves keeps it under another name, and says so.
    done = cluster.cmd("select shardman.rm_node(%s, true)", (replica,))
    assert done.status == "success", done
    assert done.data is not None
    name = next(
        t["table"] for t in done.data["set_aside"] if t["table"].startswith(f"{part}_aside_c")
    )
    assert name in (done.result or "")
    assert cluster.value(replica, f"select count(*) from {name}") == rows


def test_a_node_that_was_replaced_is_told_when_it_is_back() -> None:
    """It was removed while it was dead, and would go on serving what it had."""
    with closing(Cluster(workers=3)) as cluster:
        replicate(cluster)
        cluster.kill_node(2)
        done = cluster.cmd("select shardman.rm_node(2, true)")
        assert done.status == "success", done
        cluster.sql(1, "update acc set v = 1")
        cluster.start_node(2)
        member = "select to_regclass('shardman.local')"
        eventually(
            "it is no member any more",
            lambda: cluster.value(2, member),
            until=lambda found: found is None,
            seconds=30,
        )
        assert cluster.value(2, "select to_regclass('acc')") is None
        rows = cluster.sql(2, "select relname from pg_class where relname like 'acc%aside%'")
        assert rows
        told = "select result from shardman.cmd_log where id = %s"
        eventually(
            "its return is told",
            lambda: cluster.value(0, told, (done_id(cluster),)) or "",
            until=lambda said: "came back and was cleaned" in said,
            seconds=30,
        )
        assert check(cluster.lord_dsn, data=True) == []


def done_id(cluster: Cluster) -> int:
    return int(cluster.value(0, "select max(id) from shardman.cmd_log where cmd_type = 'rm_node'"))


def test_what_a_removed_node_had_can_still_be_promoted() -> None:
    """Its replicas are asynchronous, so nobody promoted them by himself."""
    with closing(Cluster(workers=3)) as cluster:
        replicate(cluster)
        assert cluster.cmd("select shardman.set_sync('acc', false)").status == "success"
        cluster.kill_node(2)
        done = cluster.cmd("select shardman.rm_node(2, true)")
        assert done.status == "success", done
        assert "Cannot be reached" in (done.result or "")
        done = cluster.cmd("select shardman.failover(2, true)")
        assert done.status == "success", done
        assert "may lack the last writes" in (done.result or "")
        assert cluster.value(1, "select count(*) from acc") == 100
        assert cluster.value(3, "select count(*) from acc") == 100
