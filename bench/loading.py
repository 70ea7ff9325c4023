"""Rows by the million: COPY of a plain server, `shardman copy`, and COPY through a node; and out again.

python bench/loading.py [--quick]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
from rich.console import Console
from rich.table import Table

from client import plain
from shardman.testing.cluster import Cluster

ROWS = 1_000_000
PARTITIONS = 12
WAYS = ("one server", "client", "memory", "through a node")
PROGRAM = """
import resource, sys
from shardman.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
MADE = "create table acc (id bigint primary key, n int, v text)"


def loading(rows: int, rounds: int) -> Table:
    """Seconds of each way, in turns, and what they are of a plain server's."""
    table = Table(title=f"{rows:,} rows of CSV: seconds (median of {rounds})")
    for name in ("what", *WAYS, "client / one server", "through / one server"):
        table.add_column(name, justify="left" if name == "what" else "right")
    cluster = Cluster(workers=3)
    try:
        with cluster.connect(1) as one, tempfile.TemporaryDirectory() as folder:
            one.execute(MADE)
            one.execute("create database plain")
            one.execute(
                f"select shardman.create_hash_partitions(1, 'acc', 'id', {PARTITIONS})".encode()
            )
            while cluster.commands_left():
                time.sleep(0.1)
            with psycopg.connect(plain(cluster), autocommit=True) as other:
                other.execute(MADE)
            path = Path(folder) / "a.csv"
            with psycopg.connect(plain(cluster)) as other, path.open("wb") as file:
                numbers = f"generate_series(1, {rows}) i order by random()"
                query = f"copy (select i as id, i % 1000 as n, md5(i::text) as v from {numbers})"
                query += " to stdout (format csv, header)"
                with other.cursor().copy(query.encode()) as copy:
                    for block in copy:
                        file.write(block)
            _measure(table, cluster, path, rounds)
    finally:
        cluster.close()
    return table


def _measure(table: Table, cluster: Cluster, path: Path, rounds: int) -> None:
    owner = plain(cluster)
    memory: list[int] = []

    def server(dsn: str) -> None:
        query = b"copy acc from stdin (format csv, header)"
        with psycopg.connect(dsn) as one, path.open("rb") as file, one.cursor().copy(query) as copy:
            while block := file.read(1 << 17):
                copy.write(block)

    def client() -> None:
        memory.append(_program(cluster.dsn(1), "copy", "acc", str(path)))

    def out(dsn: str) -> None:
        query = b"copy (select * from acc) to stdout (format csv, header)"
        target = path.with_suffix(".out")
        with (
            psycopg.connect(dsn) as one,
            target.open("wb") as file,
            one.cursor().copy(query) as copy,
        ):
            for block in copy:
                file.write(block)

    def out_client() -> None:
        memory.append(
            _program(cluster.dsn(1), "copy", "acc", "--to", str(path.with_suffix(".out")))
        )

    def empty() -> None:
        cluster.sql(1, "truncate acc")
        with psycopg.connect(owner, autocommit=True) as one:
            one.execute("truncate acc")

    into = [lambda: server(owner), client, lambda: server(cluster.dsn(1))]
    back = [lambda: out(owner), out_client, lambda: out(cluster.dsn(1))]
    for name, ways, before in (("load", into, empty), ("write out", back, lambda: None)):
        memory.clear()
        if ways is back:
            server(owner)
        times = _turns(ways, before, rounds)
        table.add_row(
            name,
            f"{times[0]:.2f}",
            f"{times[1]:.2f}",
            f"{max(memory)} MiB",
            f"{times[2]:.2f}",
            f"{times[1] / times[0]:.2f}",
            f"{times[2] / times[0]:.1f}",
        )


def _turns(ways: list[Callable[[], None]], before: Callable[[], None], rounds: int) -> list[float]:
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds):
        for number, way in enumerate(ways):
            before()
            begin = time.perf_counter()
            way()
            times[number].append(time.perf_counter() - begin)
    return [statistics.median(t) for t in times]


def _program(dsn: str, *arguments: str) -> int:
    """Runs the program, and says how much memory it had, in MiB."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments, "--dsn", dsn],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


if __name__ == "__main__":
    quick = "--quick" in sys.argv
    Console(width=140).print(loading(ROWS // 10 if quick else ROWS, 1 if quick else 3))
