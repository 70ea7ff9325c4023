"""Of wide rows a scan over a route fetches few at once, so that a batch fits into memory."""

from __future__ import annotations

from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

ROWS = 60
FETCHED = """
select array_agg(distinct shardman.fetched_by(f.ftrelid)) from pg_foreign_table f
 where f.ftrelid::regclass::text ~ '^wide_'
"""
WORKERS = (1, 2, 3)


def analyzed(cluster: Cluster) -> None:
    """VACUUM, for how large values are that lie out of line; ANALYZE for the number of rows."""
    for node in WORKERS:
        cluster.sql(node, "vacuum analyze")


def all_fetch(cluster: Cluster, rows: int) -> None:
    """Sooner or later, for the shardlord looks so closely once in a minute."""
    eventually(
        f"{rows} rows are fetched at once",
        lambda: [
            (cluster.value(n, "select shardman.reconcile()"), cluster.value(n, FETCHED))
            for n in WORKERS
        ],
        until=lambda seen: [found for _, found in seen] == [[rows]] * 3,
    )


def test_what_is_fetched_at_once_follows_the_width_of_rows(cluster: Cluster) -> None:
    cluster.sql(1, "create table wide (id int primary key, body bytea)")
    # 100 kB each, stored out of line as they are.
    cluster.sql(1, "alter table wide alter body set storage external")
    cluster.sql(
        1,
        "insert into wide select i, decode(repeat('00', 100000), 'hex')"
        " from generate_series(1, %s) i",
        (ROWS,),
    )
    done = cluster.cmd("select shardman.create_hash_partitions(1, 'wide', 'id', 6)")
    assert done.status == "success", done
    analyzed(cluster)
    all_fetch(cluster, 100)
    for node in WORKERS:
        assert cluster.value(node, "select sum(length(body)) from wide") == ROWS * 100_000

    # A route that is made now knows it from the first.
    owner = cluster.value(0, "select owner from shardman.partitions where part_name = 'wide_0'")
    dest = owner % 3 + 1
    assert cluster.cmd("select shardman.move_part('wide_0', %s)", (dest,)).status == "success"
    assert cluster.value(owner, FETCHED) == [100]

    # The cluster's setting bounds it, and is what all others have.
    cluster.sql(1, "update wide set body = ''")
    analyzed(cluster)
    all_fetch(cluster, 10000)
    assert (
        cluster.value(
            1,
            "select count(*) from pg_foreign_table where ftoptions::text ~ 'fetch_size'"
            " and ftrelid::regclass::text ~ '^wide_'",
        )
        == 0
    )
