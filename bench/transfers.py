"""Two-row transfers over two nodes: by the client, atomic, and by others that are not.

python bench/transfers.py [--quick]
"""

from __future__ import annotations

import random
import statistics
import sys
import threading
import time
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table

import client as bench
import shardman
from shardman.testing.cluster import Cluster

WAYS = ("one server", "client, atomic", "client, one node", "any node")
REPEATED = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)
SECONDS = 1.0


def transfers(quick: bool) -> Table:
    """Transfers a second of each way, in turns, and what was repeated (40001, 40P01)."""
    table = Table(title="two-row transfers over two nodes, a second")
    for name in ("clients", *WAYS, "atomic / one server", "atomic / any node", "repeated"):
        table.add_column(name, justify="right")
    cluster = Cluster(workers=3)
    try:
        bench.prepare(cluster)
        keys = by_node(cluster)
        for clients in (1, 8):
            rates: dict[str, list[float]] = {way: [] for way in WAYS}
            again = [0] * clients
            for number in range(2 if quick else 5):
                for way in WAYS:
                    rates[way].append(_round(cluster, way, keys, clients, number, again))
            a, b, _, d = (statistics.median(rates[w]) for w in WAYS)
            row = [f"{statistics.median(rates[w]):,.0f}" for w in WAYS]
            table.add_row(str(clients), *row, f"{b / a:.2f}", f"{b / d:.2f}", str(sum(again)))
        total = cluster.value(1, "select sum(n) from acc")
        table.caption = f"the sum of all rows behind it: {total} (0 is right)"
    finally:
        cluster.close()
    return table


def by_node(cluster: Cluster) -> list[list[int]]:
    """Keys of each worker."""
    found: dict[str, list[int]] = {}
    with shardman.connect(cluster.dsn(1)) as db:
        for key in range(1, bench.ROWS + 1):
            route = db.explain_route("select from acc where id = %s", (key,))
            found.setdefault(route.node, []).append(key)
    return list(found.values())


def _round(
    cluster: Cluster, way: str, keys: list[list[int]], clients: int, number: int, again: list[int]
) -> float:
    counts = [0.0] * clients

    def run(i: int) -> None:
        r = random.Random(number * 100 + i)
        dsn = bench.plain(cluster) if way == "one server" else cluster.dsn(1 + i % 3)
        db: Any = (
            shardman.connect(dsn, atomic=way == "client, atomic")
            if way.startswith("client")
            else psycopg.connect(dsn)
        )
        with db:
            transfer(db, r, keys, again, i)
            begin = time.perf_counter()
            done = 0
            while (took := time.perf_counter() - begin) < SECONDS:
                transfer(db, r, keys, again, i)
                done += 1
            counts[i] = done / took

    threads = [threading.Thread(target=run, args=(i,)) for i in range(clients)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return sum(counts)


def transfer(db: Any, r: random.Random, keys: list[list[int]], again: list[int], i: int) -> None:
    """One, until it is done."""
    here, there = r.sample(range(len(keys)), 2)
    changes = sorted([(r.choice(keys[here]), -1), (r.choice(keys[there]), 1)])
    while True:
        try:
            for key, n in changes:
                db.execute("update acc set n = n + %s where id = %s", (n, key))
            db.commit()
            return
        except REPEATED:
            again[i] += 1
            db.rollback()


if __name__ == "__main__":
    Console(width=140).print(transfers("--quick" in sys.argv))
