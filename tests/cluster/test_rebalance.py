"""rebalance: an even spread by the fewest moves, whatever some of them come to."""

from __future__ import annotations

import pytest

from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster


def plain(cluster: Cluster, name: str, parts: int, rows: str) -> None:
    """A table whose partitions all lie on node 1; rows: a query for id and note."""
    cluster.sql(1, f"create table {name} (id int primary key, note text)")  # type: ignore[arg-type]
    cluster.sql(1, f"insert into {name} {rows}")  # type: ignore[arg-type]
    done = cluster.cmd(
        "select shardman.create_hash_partitions(1, %s, 'id', %s, false)", (name, parts)
    )
    assert done.status == "success", done


def spread(cluster: Cluster, name: str) -> dict[int, int]:
    rows = cluster.sql(
        0,
        "select owner, count(*) from shardman.partitions where relation = %s group by owner",
        (name,),
    )
    return dict(rows)


def moves(cluster: Cluster) -> int:
    return int(
        cluster.value(0, "select count(*) from shardman.cmd_log where cmd_type = 'move_part'")
    )


def test_by_number(cluster: Cluster) -> None:
    plain(cluster, "numbered", 7, "select i, 'x' from generate_series(1, 700) i")
    before = moves(cluster)
    done = cluster.cmd("select shardman.rebalance('numbered')")
    assert (done.status, done.result) == ("done", "Moved 4 of 4 partitions.")
    assert done.data == {"moved": 4, "failed": 0}
    assert moves(cluster) - before == 4
    assert sorted(spread(cluster, "numbered").values()) == [2, 2, 3]
    again = cluster.cmd("select shardman.rebalance('numbered')")
    assert (again.status, again.data) == ("done", {"moved": 0, "failed": 0})
    assert cluster.value(3, "select count(*) from numbered") == 700
    assert check(cluster.lord_dsn, data=True) == []


def test_by_bytes(cluster: Cluster) -> None:
    # Nearly all bytes are in the partition of one key.
    plain(cluster, "heavy", 4, "select i, 'x' from generate_series(1, 100) i")
    part = cluster.value(1, "select tableoid::regclass::text from heavy where id = 1")
    cluster.sql(
        1,
        "insert into heavy select i, repeat(md5(i::text), 50) from generate_series(101, 30000) i"
        " where satisfies_hash_partition('heavy'::regclass, 4,"
        " (regexp_match(%s, '_([0-9]+)_data$'))[1]::int, i)",
        (part,),
    )
    done = cluster.cmd("select shardman.rebalance('heavy', 'bytes')")
    assert (done.status, done.result) == ("done", "Moved 1 of 1 partitions.")
    assert cluster.value(
        0,
        "select owner <> 1 from shardman.partitions where shardman.data_table(part_name) = %s",
        (part,),
    )
    assert check(cluster.lord_dsn, data=True) == []


def test_a_failed_move_does_not_stop_the_rest(cluster: Cluster) -> None:
    plain(cluster, "stuck", 6, "select i, 'x' from generate_series(1, 600) i")
    for node in (2, 3):
        cluster.sql(node, "create table stuck_0_data (x int)")
    done = cluster.cmd("select shardman.rebalance('stuck')")
    kept = [cluster.value(n, "select to_regclass('stuck_0_data') is not null") for n in (2, 3)]
    for node in (2, 3):
        cluster.sql(node, "drop table if exists stuck_0_data")
    assert kept == [True, True]
    assert done.status == "done"
    assert "Moved 3 of 4 partitions." in (done.result or "")
    assert done.data == {"moved": 3, "failed": 1}
    assert cluster.sql(
        0,
        "select cmd_type, error_code from shardman.commands where status = 'failed'"
        " and parent = (select max(parent) from shardman.commands)",
    ) == [("move_part", "name_taken")]
    assert "stuck_0 stays on node 1" in (done.result or "")
    assert "has a table stuck_0_data already" in (done.result or "")
    assert sorted(spread(cluster, "stuck").values()) == [1, 2, 3]
    assert cluster.cmd("select shardman.rebalance('stuck')").result == "Moved 1 of 1 partitions."
    assert cluster.value(2, "select count(*) from stuck") == 600
    assert check(cluster.lord_dsn, data=True) == []


def test_a_node_that_is_down_takes_no_part(cluster: Cluster) -> None:
    plain(cluster, "halved", 4, "select i, 'x' from generate_series(1, 100) i")
    cluster.stop_node(3)
    try:
        done = cluster.cmd("select shardman.rebalance('halved')")
    finally:
        cluster.start_node(3)
    assert done.status == "done"
    assert "Node 3 cannot be reached" in (done.result or "")
    assert spread(cluster, "halved") == {1: 2, 2: 2}
    assert check(cluster.lord_dsn, data=True, patience=30) == []


@pytest.mark.parametrize("name", ["nowhere", "shardman.nodes"])
def test_refused(cluster: Cluster, name: str) -> None:
    done = cluster.cmd("select shardman.rebalance(%s)", (name,))
    assert (done.status, done.code) == ("failed", "not_sharded")
    assert f"{name} is not a sharded table" in (done.error or "")


def test_a_new_worker_gets_its_share(cluster: Cluster) -> None:
    plain(cluster, "growing", 8, "select i, 'x' from generate_series(1, 800) i")
    assert cluster.cmd("select shardman.rebalance('growing')").status == "done"
    before = moves(cluster)
    new = cluster.add_worker()
    done = cluster.cmd("select shardman.rebalance('growing')")
    assert done.result == "Moved 2 of 2 partitions."
    assert moves(cluster) - before == 2
    assert spread(cluster, "growing") == {1: 2, 2: 2, 3: 2, new: 2}
    assert cluster.value(new, "select count(*) from growing") == 800
    assert check(cluster.lord_dsn, data=True) == []
