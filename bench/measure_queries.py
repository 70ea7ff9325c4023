"""Reads, writes, an aggregate and a load: through a node, straight to the owner, on a plain server."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack, closing

from rich.table import Table

from shardman.pg.connection import SyncConnection
from shardman.testing.cluster import Cluster
from timing import seconds, side_by_side

ROWS = 100_000
COLUMNS = "(id int primary key, n int not null, filler text not null)"
FILL = "select i, i %% 1000, repeat('x', 60) from generate_series(1, %s) i"


def prepared_cluster(stack: ExitStack, partitions: int, rows: int) -> Cluster:
    """Three workers with a sharded table t; worker 1 also has the same rows in a plain table p."""
    cluster = stack.enter_context(closing(Cluster(workers=3)))
    for table in ("t", "p"):
        cluster.sql(1, f"create table {table} {COLUMNS}".encode())
        cluster.sql(1, f"insert into {table} {FILL}".encode(), (rows,))
    done = cluster.cmd(
        "select shardman.create_hash_partitions(1, 't', 'id', %s)", (partitions,), seconds=1200
    )
    assert done.status == "success", done
    for node in cluster.worker_dsns:
        cluster.sql(node, "vacuum analyze")
    return cluster


def queries(quick: bool) -> Table:
    """Growth with the number of partitions; ratios to the plain server."""
    table = Table(title="queries: median ms (ratio to a plain server)")
    for column in ("partitions", "what", "plain", "straight to the owner", "through a node"):
        table.add_column(column, justify="right")
    for partitions in (12,) if quick else (12, 128, 1024):
        with ExitStack() as stack:
            cluster = prepared_cluster(stack, partitions, ROWS)
            for what, taken in _measure(cluster, stack, 100 if quick else 400).items():
                plain = taken["plain"]
                table.add_row(
                    str(partitions),
                    what,
                    *(f"{t * 1000:.2f} ({t / plain:.1f})" for t in taken.values()),
                )
    return table


def _measure(cluster: Cluster, stack: ExitStack, rounds: int) -> dict[str, dict[str, float]]:
    owned = [
        r[0]
        for r in cluster.sql(2, "select id from t where tableoid::regclass::text like '%_data'")
    ]
    one, two = (stack.enter_context(cluster.connect(n)) for n in (1, 2))

    def on(conn: SyncConnection, query: str) -> Callable[[], object]:
        return lambda: conn.execute(query.encode(), (random.choice(owned),)).fetchall()

    def whole(table: str) -> Callable[[], object]:
        return lambda: one.execute(f"select count(*), sum(n) from {table}".encode()).fetchall()

    read = "select n from {} where id = %s"
    write = "update {} set n = n + 1 where id = %s returning n"
    return {
        "point read": side_by_side(_three(on, one, two, read), rounds),
        "point write": side_by_side(_three(on, one, two, write), rounds),
        "full aggregate": side_by_side(
            {"plain": whole("p"), "owner": whole("t"), "node": whole("t")}, max(5, rounds // 40)
        ),
    }


def _three(
    on: Callable[[SyncConnection, str], Callable[[], object]],
    one: SyncConnection,
    two: SyncConnection,
    query: str,
) -> dict[str, Callable[[], object]]:
    """The rows asked for lie on worker 2."""
    return {
        "plain": on(one, query.format("p")),
        "owner": on(two, query.format("t")),
        "node": on(one, query.format("t")),
    }


def load_speed(quick: bool) -> Table:
    """COPY through one node against a plain COPY."""
    rows = 50_000 if quick else 300_000
    lines = "".join(f"{i},{i % 1000},{'x' * 60}\n" for i in range(1, rows + 1)).encode()
    table = Table(title=f"loading {rows:,} rows by COPY")
    for column in ("into", "s", "rows/s", "ratio"):
        table.add_column(column, justify="right")
    with ExitStack() as stack:
        cluster = prepared_cluster(stack, 12, 0)
        with cluster.connect(1) as conn:
            plain = seconds(lambda: _copy(conn, "p", lines))
            sharded = seconds(lambda: _copy(conn, "t", lines))
    for name, took in (("a plain table", plain), ("a sharded table, one node", sharded)):
        table.add_row(name, f"{took:.2f}", f"{rows / took:,.0f}", f"{took / plain:.1f}")
    return table


def _copy(conn: SyncConnection, table: str, lines: bytes) -> None:
    with conn.cursor().copy(f"copy {table} from stdin (format csv)".encode()) as copy:
        copy.write(lines)
