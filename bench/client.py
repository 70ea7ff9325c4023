"""A client that knows the partitions beside one plain server, straight to the owner, and through any node.

python bench/client.py [--quick]
"""

from __future__ import annotations

import random
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import conninfo
from rich.console import Console
from rich.table import Table

import shardman
from shardman.testing.cluster import Cluster

ROWS = 30_000
PARTITIONS = 12
#: (a), (b), (c), (d) of the columns.
WAYS = ("one server", "owner", "client", "any node")

Send = Callable[[str, Any], Any]
Work = Callable[[Send, int], None]


def client(quick: bool) -> Table:
    """Statements a second of each way, and what the client has of the others; all in turns."""
    table = Table(title="the client: statements a second")
    for name in (
        "statement",
        "clients",
        *WAYS,
        "client / owner",
        "client / one server",
        "client / any node",
    ):
        table.add_column(name, justify="left" if name == "statement" else "right")
    cluster = Cluster(workers=3)
    try:
        prepare(cluster)
        keys = _keys(cluster)
        for clients in (1, 8):
            for name, work in WORKS.items():
                rates = _measure(cluster, keys, work, clients, rounds=2 if quick else 5)
                a, b, c, d = (rates[w] for w in WAYS)
                table.add_row(
                    name,
                    str(clients),
                    *(f"{rates[w]:,.0f}" if rates[w] else "refused" for w in WAYS),
                    f"{c / b:.2f}",
                    f"{c / a:.2f}",
                    f"{c / d:.1f}" if d else "",
                )
    finally:
        cluster.close()
    return table


def prepare(cluster: Cluster) -> None:
    made = "create table acc (id bigint primary key, n int, v text)"
    rows = f"insert into acc select i, 0, md5(i::text) from generate_series(1, {ROWS}) i"
    with cluster.connect(1) as one:
        one.execute(made)
        one.execute(rows.encode())
        one.execute("create database plain")
    assert (
        cluster.cmd(
            f"select shardman.create_hash_partitions(1, 'acc', 'id', {PARTITIONS})".encode()
        ).status
        == "success"
    )  # type: ignore[arg-type]
    with psycopg.connect(plain(cluster), autocommit=True) as one:
        one.execute(made)
        one.execute(rows.encode())
    for node in (1, 2, 3):
        cluster.sql(node, "analyze")


def plain(cluster: Cluster) -> str:
    return conninfo.make_conninfo(cluster.dsn(1), dbname="plain")


def _keys(cluster: Cluster) -> dict[int, tuple[str, str, list[int]]]:
    """Of each partition its name, the address of its owner, and keys of it."""
    found: dict[int, tuple[str, str, list[int]]] = {}
    with shardman.connect(cluster.dsn(1)) as db:
        for key in range(1, ROWS + 1):
            route = db.explain_route("select from acc where id = %s", (key,))
            number = int(route.partitions[0].rpartition("_")[2])
            node = int(route.node.split()[1])
            found.setdefault(number, (route.partitions[0], cluster.dsn(node), []))[2].append(key)
    return found


def read(send: Send, key: int) -> None:
    send("select n, v from acc where id = %s", (key,)).fetchone()


def update(send: Send, key: int) -> None:
    send("update acc set n = n + 1 where id = %s", (key,))


def upsert(send: Send, key: int) -> None:
    send(
        "insert into acc (id, n) values (%s, 1) on conflict (id) do update set n = acc.n + 1",
        (key,),
    )


HUNDRED = (
    "insert into acc (id, n) values " + ", ".join(["(%s, 1)"] * 100) + " on conflict do nothing"
)


def insert(send: Send, key: int) -> None:
    # A hundred rows of one key's partition; the client sees that.
    send(HUNDRED, [key] * 100)


WORKS: dict[str, Work] = {
    "point read": read,
    "update": update,
    "upsert": upsert,
    "100-row insert": insert,
}


def _measure(
    cluster: Cluster, keys: dict[int, Any], work: Work, clients: int, rounds: int
) -> dict[str, float]:
    """Statements a second, the median of the rounds; the ways alternate."""
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way in WAYS:
            counts = [0] * clients
            threads = [
                threading.Thread(target=_run, args=(cluster, way, keys, work, counts, i, number))
                for i in range(clients)
            ]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            rates[way].append(sum(counts))
    return {way: statistics.median(found) for way, found in rates.items()}


def _run(
    cluster: Cluster,
    way: str,
    keys: dict[int, Any],
    work: Work,
    counts: list[int],
    i: int,
    number: int,
) -> None:
    """One client, for two thirds of a second; each is at home in one partition."""
    r = random.Random(number * 100 + i)
    name, owner, own = keys[(number * 3 + i) % len(keys)]
    dsn = {"one server": plain(cluster), "owner": owner}.get(way, cluster.dsn(1 + i % 3))
    db: Any = (
        shardman.connect(dsn, autocommit=True)
        if way == "client"
        else psycopg.connect(dsn, autocommit=True)
    )
    with db:
        send: Send = db.execute
        if way == "owner":
            # As somebody writes it who knows where it is.
            texts: dict[str, str] = {}

            def send(sql: str, params: Any) -> Any:
                text = texts.get(sql)
                if text is None:
                    part = name + "_data" if "do update" in sql else name
                    text = texts[sql] = sql.replace(" acc ", f" {part} as acc ", 1)
                return db.execute(text, params)

        try:
            for _ in range(20):
                work(send, r.choice(own))
        except psycopg.Error:
            return
        begin = time.perf_counter()
        done = 0
        while (took := time.perf_counter() - begin) < 0.66:
            work(send, r.choice(own))
            done += 1
        counts[i] = int(done / took)


if __name__ == "__main__":
    Console(width=140).print(client("--quick" in sys.argv))
