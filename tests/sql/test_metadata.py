"""The metadata as the shardlord, `--plan` and `shardman check` read it."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg

from shardman.model.cluster import Copy
from shardman.pg.metadata import read_cluster, read_cluster_sync
from sql.databases import Nodes

AT = datetime(2024, 2, 29, 23, 30, 0, 250000, tzinfo=UTC)


TABLE = """
insert into shardman.tables (relation, expr, partitions_count, create_sql, initial_node, definition, replevel)
values ('acc', 'id', 1, '', 1, '{"a": [1, null]}', 1)
"""
COPIES = """
insert into shardman.partitions (part_name, owner, prv, nxt, relation, stale_since)
values ('acc_0', 1, null, 2, 'acc', null), ('acc_0', 2, 1, null, 'acc', %s)
"""


async def test_both_ways_of_reading_give_the_same(nodes: Nodes) -> None:
    node = nodes.all[1]
    node.receive((TABLE, ()), (COPIES, (AT,)))
    with node.connect() as conn:
        # What a session prefers for itself does not change what is read.
        conn.execute("set timezone = 'Asia/Kathmandu'")
        cluster = read_cluster_sync(conn)
    async with await psycopg.AsyncConnection.connect(node.dsn, autocommit=True) as conn:
        assert await read_cluster(conn) == cluster
    assert cluster.id == "abcdef"
    assert sorted(cluster.nodes) == [0, 1, 2]
    assert cluster.tables["acc"].definition == {"a": [1, None]}
    assert cluster.copies == (
        Copy("acc_0", 1, None, 2, "acc"),
        Copy("acc_0", 2, 1, None, "acc", AT),
    )
    assert str(cluster.copies[1].stale_since) == "2024-02-29 23:30:00.250000+00:00"
