"""A node without room: others take over, and it comes back by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
import pytest

from shardman.nodes.invariants import check
from shardman.testing import eventually
from shardman.testing.cluster import Cluster
from shardman.testing.load import make_bank
from shardman.testing.small_disk import NoDiskError, SmallDisk

SIZE = 300
NODE = 2
ROOM_MB = 160


@pytest.fixture(scope="module")
def small(cluster: Cluster) -> Iterator[tuple[Cluster, SmallDisk]]:
    """Node 2 lies on a file system of its own."""
    make_bank(cluster, SIZE)
    assert cluster.cmd("select shardman.set_replevel('accounts', 1)").status == "done"
    cluster.sql(0, "insert into shardman.settings values ('failover_after', '3600')")
    cluster.sql(0, "insert into shardman.settings values ('rebuild_after', '3600')")
    try:
        disk = SmallDisk(cluster, NODE, ROOM_MB)
    except NoDiskError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    with disk:
        cluster.sql(0, "update shardman.settings set value = '2' where name = 'failover_after'")
        yield cluster, disk


def write(cluster: Cluster, via: int) -> float:
    """A client that writes to every partition until it succeeds; how long that took."""
    begun = time.monotonic()

    def once() -> object:
        with cluster.connect(via) as conn:
            conn.execute("set statement_timeout = '1s'")
            return conn.execute("update accounts set touched = touched + 1 returning 1").fetchone()

    eventually("a write to every partition", once, tolerate=psycopg.Error, seconds=60)
    return time.monotonic() - begun


def test_a_full_disk(small: tuple[Cluster, SmallDisk]) -> None:
    cluster, disk = small
    held = "select count(*) from shardman.partitions where owner = %s and stale_since is null"
    assert cluster.value(0, held, (NODE,)) > 0
    eventually(
        "every copy follows",
        lambda: cluster.value(
            0, "select count(*) from shardman.partitions where stale_since is not null"
        ),
        until=lambda n: n == 0,
    )
    disk.fill()
    ended = "select reason from shardman.cmd_log where cmd_type = 'failover' and status in ('success', 'done')"
    ((reason,),) = eventually("node 2 is replaced", lambda: cluster.sql(0, ended), seconds=20)
    assert reason.startswith("cannot write")
    assert write(cluster, 1) < 6
    disk.empty()
    eventually(
        "no copy is stale",
        lambda: cluster.value(
            0, "select count(*) from shardman.partitions where stale_since is not null"
        ),
        until=lambda n: n == 0,
        seconds=60,
    )
    assert check(cluster.lord_dsn, data=True, patience=60) == []
