"""How long it takes to shard a table, against sending its rows to their nodes by hand."""

from __future__ import annotations

import statistics
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from rich.table import Table

from shardman.local import find_programs
from shardman.testing.cluster import Cluster
from timing import seconds

PARTITIONS = 12
COLUMNS = "id int, value int, filler text"


def conversion(quick: bool) -> Table:
    """A full table against one COPY | COPY of a third of its rows to each node and an index there; then empty
    tables of many partitions."""
    table = Table(title="create_hash_partitions, three workers")
    for column in ("rows", "partitions", "what", "s", "ratio"):
        table.add_column(column, justify="right")
    rows = 100_000 if quick else 1_000_000
    with closing(Cluster(workers=3, fsync=True)) as cluster:
        by_hand, ours = [], []
        for _ in range(1 if quick else 4):
            _fill(cluster, rows)
            by_hand.append(seconds(lambda: _copy_and_index(cluster)))
            ours.append(seconds(lambda: _shard(cluster, PARTITIONS)))
            _drop(cluster)
        plain = statistics.median(by_hand)
        ratio = statistics.median(o / h for h, o in zip(by_hand, ours, strict=True))
        table.add_row(f"{rows:,}", "", "psql | psql + index", f"{plain:.2f}", "1.00")
        took = f"{statistics.median(ours):.2f}"
        table.add_row(f"{rows:,}", str(PARTITIONS), "create_hash_partitions", took, f"{ratio:.2f}")
        for partitions in (128,) if quick else (128, 512):
            _fill(cluster, 0)
            took = f"{seconds(lambda n=partitions: _shard(cluster, n)):.2f}"  # type: ignore[misc]
            table.add_row("0", str(partitions), "create_hash_partitions", took, "")
            _drop(cluster)
    return table


def _fill(cluster: Cluster, rows: int) -> None:
    cluster.sql(1, f"create table t ({COLUMNS}, primary key (id))")
    cluster.sql(
        1, "insert into t select i, i, repeat('x', 60) from generate_series(1, %s) i", (rows,)
    )


def _shard(cluster: Cluster, partitions: int) -> None:
    done = cluster.cmd(
        f"select shardman.create_hash_partitions(1, 't', 'id', {partitions})", seconds=900
    )
    assert done.status == "success", done


def _drop(cluster: Cluster) -> None:
    done = cluster.cmd("select shardman.drop_table('t')", seconds=900)
    assert done.status == "success", done


def _copy_and_index(cluster: Cluster) -> None:
    """What anybody would do by hand: a third of the rows to each node, all at once."""
    nodes = list(cluster.worker_dsns)
    for node in nodes:
        cluster.sql(node, f"create table by_hand ({COLUMNS})")
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda node: _third(cluster, node, len(nodes)), nodes))
    for node in nodes:
        cluster.sql(node, "drop table by_hand")


def _third(cluster: Cluster, node: int, nodes: int) -> None:
    psql = find_programs().bin / "psql"
    rows = f"select * from t where id % {nodes} = {node - 1}"
    subprocess.run(
        f'"{psql}" "{cluster.dsn(1)}" -qc "copy ({rows}) to stdout" |'
        f' "{psql}" "{cluster.dsn(node)}" -qc "copy by_hand from stdin"',
        shell=True,
        check=True,
    )
    cluster.sql(node, "alter table by_hand add primary key (id)")
