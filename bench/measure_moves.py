"""How fast a partition moves, and the longest wait a writer sees meanwhile."""

from __future__ import annotations

import statistics
import subprocess
from contextlib import closing

from rich.table import Table

from shardman.local import find_programs
from shardman.testing.cluster import Cluster
from shardman.testing.load import Bank, Load
from timing import seconds

MOVES = 10
PAIRS = 10
#: Of more rows fewer moves are made, and none under load: they would take a quarter of an hour.
LOADED_ROWS = 1_000_000
LARGE_PAIRS = 4


def moves(quick: bool) -> Table:
    """Idle moves against COPY | COPY plus the index build; then moves under four writers."""
    table = Table(title="moves of one partition")
    for column in ("rows", "what", "s", "MB/s", "ratio", "longest wait, median of the moves"):
        table.add_column(column, justify="right")
    for rows in (83_000,) if quick else (83_000, 1_000_000, 5_000_000):
        # As in production: what a disk costs it costs both.
        with closing(Cluster(workers=2, fsync=True)) as cluster:
            _one_size(table, cluster, rows)
    return table


def _one_size(table: Table, cluster: Cluster, rows: int) -> None:
    cluster.sql(
        1,
        "create table t (id int primary key, touched bigint not null default 0,"
        " balance bigint not null default 0, filler text)",
    )
    cluster.sql(
        1, "insert into t select i, 0, 0, repeat('x', 60) from generate_series(1, %s) i", (rows,)
    )
    done = cluster.cmd(
        "select shardman.create_hash_partitions(1, 't', 'id', 1, false)", seconds=600
    )
    assert done.status == "success", done
    size = int(cluster.value(1, "select pg_table_size('t_0_data')")) / 1e6
    baseline, idle = [], []
    for turn in range(PAIRS if rows <= LOADED_ROWS else LARGE_PAIRS):
        baseline.append(seconds(lambda at=turn % 2 + 1: _copy_and_index(cluster, at)))
        idle.append(seconds(lambda to=2 - turn % 2: _move(cluster, to)))
    plain = statistics.median(baseline)
    ratio = statistics.median(ours / by_hand for by_hand, ours in zip(baseline, idle, strict=True))
    for what, took, each in (
        ("psql | psql + index", plain, 1.0),
        ("move", statistics.median(idle), ratio),
    ):
        table.add_row(f"{rows:,}", what, f"{took:.2f}", f"{size / took:.0f}", f"{each:.2f}", "")
    if rows > LOADED_ROWS:
        return
    taken, waits = _under_load(cluster, rows)
    table.add_row(
        f"{rows:,}",
        "move, four writers",
        f"{taken:.2f}",
        f"{size / taken:.0f}",
        f"{taken / plain:.2f}",
        f"{statistics.median(waits) * 1000:.0f} ms (worst {max(waits) * 1000:.0f})",
    )


def _move(cluster: Cluster, dest: int) -> None:
    done = cluster.cmd("select shardman.move_part('t_0', %s)", (dest,), seconds=600)
    assert done.status == "success", done


def _copy_and_index(cluster: Cluster, source: int) -> None:
    """What anybody would do by hand, between the same servers."""
    psql = find_programs().bin / "psql"
    dest = 3 - source
    cluster.sql(dest, "drop table if exists by_hand")
    cluster.sql(dest, "create table by_hand (id int, touched bigint, balance bigint, filler text)")
    subprocess.run(
        f'"{psql}" "{cluster.dsn(source)}" -qc "copy t_0_data to stdout" |'
        f' "{psql}" "{cluster.dsn(dest)}" -qc "copy by_hand from stdin"',
        shell=True,
        check=True,
    )
    cluster.sql(dest, "alter table by_hand add primary key (id)")
    cluster.sql(dest, "drop table by_hand")


def _under_load(cluster: Cluster, rows: int) -> tuple[float, list[float]]:
    bank = Bank("t", rows)
    taken, waits = [], []
    with Load(list(cluster.worker_dsns.values()), [bank.increment], workers=4) as load:
        for turn in range(MOVES):
            load.reset_waits()
            taken.append(seconds(lambda to=2 - turn % 2: _move(cluster, to)))
            waits.append(load.longest_s)
    assert not load.errors, load.errors[:3]
    return statistics.median(taken), waits
