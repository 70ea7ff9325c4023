"""Questions to all partitions: one plain server, the client, and through a node, in turns.

python bench/questions.py [--quick]
"""

from __future__ import annotations

import sys
from contextlib import closing
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table

import shardman
from client import plain
from shardman.testing.cluster import Cluster
from timing import side_by_side

MADE = "create table acc (id bigint primary key, grp int, amount numeric(12, 2), v text)"
QUESTIONS = {
    "count(*)": "select count(*) from acc",
    "sum, avg": "select sum(amount), avg(grp) from acc",
    "GROUP BY on a non-key": "select grp, count(*), sum(amount) from acc group by grp order by grp",
    "top 10": "select id, amount from acc order by amount desc, id limit 10",
}


def questions(rows: int, rounds: int) -> Table:
    """Milliseconds of each way, and what they are of a plain server's."""
    table = Table(title=f"{rows:,} rows: milliseconds (median of {rounds})")
    for name in ("question", "one server", "client", "through a node", "client / one server"):
        table.add_column(name, justify="left" if name == "question" else "right")
    columns = "i, i % 1000, i % 7919 / 4.0, md5(i::text)"
    filled = f"insert into acc select {columns} from generate_series(1, {rows}) i"
    with closing(Cluster(workers=3)) as cluster:
        with cluster.connect(1) as one:
            one.execute(MADE)
            one.execute(filled.encode())
            one.execute("create database plain")
        done = cluster.cmd("select shardman.create_hash_partitions(1, 'acc', 'id', 12)")
        assert done.status == "success", done
        with psycopg.connect(plain(cluster), autocommit=True) as one:
            one.execute(MADE)
            one.execute(filled.encode())
            one.execute("vacuum analyze")
        for node in (1, 2, 3):
            cluster.sql(node, "vacuum analyze")
        _measure(cluster, table, rounds)
    return table


def _measure(cluster: Cluster, table: Table, rounds: int) -> None:
    with (
        psycopg.connect(plain(cluster), autocommit=True) as one,
        shardman.connect(cluster.dsn(1), autocommit=True) as client,
        cluster.connect(1) as node,
    ):
        ways: dict[str, Any] = {"one server": one, "client": client, "through a node": node}
        for name, text in QUESTIONS.items():
            works = {w: lambda c=c, t=text: c.execute(t).fetchall() for w, c in ways.items()}
            answers = [work() for work in works.values()]
            assert answers[0] == answers[1] == answers[2], name
            found = side_by_side(works, rounds)
            ms = [found[w] * 1000 for w in ways]
            table.add_row(name, *(f"{m:,.0f}" for m in ms), f"{ms[1] / ms[0]:.2f}")


if __name__ == "__main__":
    quick = "--quick" in sys.argv
    Console(width=120).print(questions(100_000 if quick else 1_000_000, 3 if quick else 9))
