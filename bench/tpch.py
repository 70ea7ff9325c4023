"""TPC-H with its foreign keys, as `shardman distribute` lays it: one server, through a node, by the client.

python bench/tpch.py [--scale 0.02] [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table

import shardman
from client import plain
from shardman.pg.connection import SyncConnection
from shardman.testing.cluster import Cluster

SQL = Path(__file__).parent.parent / "tests" / "answers" / "tpch"
QUERIES = sorted(SQL.glob("q*.sql"))
TABLES = ("region", "nation", "supplier", "customer", "part", "partsupp", "orders", "lineitem")
#: What it may take before it is given up.
LIMIT = "30s"


def fill(session: SyncConnection, rows: Path) -> None:
    """Tables, rows and foreign keys."""
    session.execute((SQL / "schema.sql").read_text().encode())
    for table in TABLES:
        with session.cursor().copy(
            f"copy {table} from stdin (format csv, header)".encode()
        ) as copy:
            copy.write((rows / f"{table}.csv").read_bytes())
    session.execute((SQL / "foreign_keys.sql").read_text().encode())


def distribute(cluster: Cluster) -> float:
    """Seconds."""
    program = Path(sys.executable).parent / "shardman"
    wish = ("--shard", "orders=o_orderkey", "--shard", "lineitem=l_orderkey", "--partitions", "6")
    begun = time.perf_counter()
    subprocess.run(
        [program, "distribute", "--dsn", cluster.dsn(1), *wish, "--apply", "--yes"], check=True
    )
    return time.perf_counter() - begun


def asked(way: Any, text: str) -> tuple[float, list[str] | None]:
    """Milliseconds, and the rows in any order; no rows where it takes longer than it may."""
    begun = time.perf_counter()
    try:
        rows = sorted(map(repr, way.execute(text).fetchall()))
    except psycopg.errors.QueryCanceled:
        rows = None
    return (time.perf_counter() - begun) * 1000, rows


def measured(cluster: Cluster, rounds: int) -> Table:
    """Milliseconds of each query in each way; an answer that differs ends it."""
    table = Table(title=f"milliseconds (median of {rounds}; {LIMIT} at most)")
    for name in ("query", "one server", "through a node", "client", "node / one server"):
        table.add_column(name, justify="right")
    with (
        psycopg.connect(plain(cluster), autocommit=True) as one,
        cluster.connect(1) as node,
        shardman.connect(cluster.dsn(1), autocommit=True) as client,
    ):
        ways: tuple[Any, ...] = (one, node, client)
        for way in ways:
            way.execute(f"set statement_timeout = '{LIMIT}'")
        for query in QUERIES:
            text = query.read_text()
            taken: list[list[float]] = [[], [], []]
            for _ in range(rounds):
                answers = []
                for way, times in zip(ways, taken, strict=True):
                    took, rows = asked(way, text)
                    times.append(took)
                    answers += [] if rows is None else [rows]
                assert all(a == answers[0] for a in answers), f"{query.stem}: answers differ"
            medians = [statistics.median(times) for times in taken]
            table.add_row(
                query.stem, *(f"{m:.0f}" for m in medians), f"{medians[1] / medians[0]:.1f}"
            )
    return table


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", default="0.02")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    console = Console()
    generator = Path(sys.executable).parent / "tpchgen-cli"
    with tempfile.TemporaryDirectory() as rows, closing(Cluster(workers=3)) as cluster:
        made = [generator, "csv", "-s", args.scale, "--output-dir", rows, "--quiet"]
        subprocess.run(made, check=True)
        cluster.sql(1, "create database plain")
        with psycopg.connect(plain(cluster), autocommit=True) as one, cluster.connect(1) as node:
            for session in (one, node):
                fill(session, Path(rows))
        console.print(f"distributed in {distribute(cluster):.1f} s")
        with psycopg.connect(plain(cluster), autocommit=True) as one:
            one.execute("vacuum analyze")
        for worker in cluster.worker_dsns:
            cluster.sql(worker, "vacuum analyze")
        console.print(measured(cluster, args.rounds))


if __name__ == "__main__":
    main()
