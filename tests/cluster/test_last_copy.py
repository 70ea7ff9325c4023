"""A replica whose primary cannot be reached may be the last copy: nothing drops it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shardman.testing.cluster import Cluster


@pytest.fixture
def copies(cluster: Cluster) -> Iterator[tuple[str, int, int]]:
    """A partition, its primary's node, which is down, and its replica's."""
    cluster.sql(0, "insert into shardman.settings values ('failover_after', '3600')")
    cluster.sql(1, "create table acc (id int primary key, v int)")
    cluster.sql(1, "insert into acc select i, i from generate_series(1, 100) i")
    for call in (
        "select shardman.create_hash_partitions(1, 'acc', 'id', 6)",
        "select shardman.set_replevel('acc', 1)",
    ):
        assert cluster.cmd(call).status in ("success", "done")
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
    assert done.status == "failed"
    assert "may be the last copy" in (done.error or "")
    # What only goes through many of them leaves this one alone.
    assert cluster.cmd("select shardman.set_replevel('acc', 0)").status == "done"
    assert cluster.cmd("select shardman.drain_node(%s)", (replica,)).status == "done"
    assert cluster.value(replica, there) == rows

    # A node that leaves keeps it under another name, and says so.
    done = cluster.cmd("select shardman.rm_node(%s, true)", (replica,))
    assert done.status == "success", done
    aside = f"{part}_aside_c"
    assert aside in (done.result or "")
    name = next(w for w in (done.result or "").replace(",", " ").split() if w.startswith(aside))
    assert cluster.value(replica, f"select count(*) from {name.rstrip('.')}") == rows
