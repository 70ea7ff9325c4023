"""How long the partitions of a node that dies cannot be written."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from contextlib import closing

import psycopg
from rich.table import Table

from shardman.testing.cluster import Cluster
from shardman.testing.faults import freeze

ROWS = 5_000
CLIENTS = 4


def failover(quick: bool) -> Table:
    """Seconds from the fault to the first acknowledged write of each partition; the settings are the
    defaults (``failover_after`` is 5 s)."""
    table = Table(title="a node with all primaries dies, each has one replica")
    for column in ("partitions", "fault", "first write", "median", "last"):
        table.add_column(column, justify="right")
    for partitions in (12,) if quick else (12, 100):
        for fault, inflict in (("kill -9", _kill), ("hangs", _freeze)):
            with closing(Cluster(workers=3)) as cluster:
                ids = _fill(cluster, partitions)
                begun = time.monotonic()
                heal = inflict(cluster)
                taken = sorted(_write_all(cluster, ids, begun))
                heal()
            table.add_row(
                str(partitions),
                fault,
                *(f"{s:.1f} s" for s in (taken[0], statistics.median(taken), taken[-1])),
            )
    return table


def _fill(cluster: Cluster, partitions: int) -> list[int]:
    """A table whose primaries are all on node 1; the id of one row in each partition."""
    cluster.sql(1, "create table t (id int primary key, v int not null default 0)")
    cluster.sql(1, "insert into t (id) select generate_series(1, %s)", (ROWS,))
    for query in (
        f"select shardman.create_hash_partitions(1, 't', 'id', {partitions}, false)",
        "select shardman.set_replevel('t', 1)",
    ):
        done = cluster.cmd(query.encode(), seconds=600)
        assert done.status in ("success", "done"), done
    return [r[0] for r in cluster.sql(2, "select min(id) from t group by tableoid")]


def _kill(cluster: Cluster) -> Callable[[], None]:
    cluster.kill_node(1)
    return lambda: None


def _freeze(cluster: Cluster) -> Callable[[], None]:
    return freeze(cluster, 1)


def _write_all(cluster: Cluster, ids: list[int], begun: float) -> list[float]:
    """When each of the rows could be written, by clients of the other nodes that try again."""
    taken: list[float] = []

    def client(node: int, mine: list[int]) -> None:
        conn = None
        while mine:
            try:
                if conn is None or conn.closed:
                    conn = psycopg.connect(cluster.dsn(node), autocommit=True, connect_timeout=5)
                conn.execute("update t set v = v + 1 where id = %s", (mine[-1],))
            except psycopg.Error:
                time.sleep(0.02)
            else:
                taken.append(time.monotonic() - begun)
                mine.pop()
        if conn is not None:
            conn.close()

    threads = [
        threading.Thread(target=client, args=(2 + k % 2, ids[k::CLIENTS])) for k in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(taken) == len(ids), "not all could be written"
    return taken
