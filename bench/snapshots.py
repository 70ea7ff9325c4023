"""Snapshots of all nodes while clients transfer between nodes: how many are torn, and who waits for whom.

python bench/snapshots.py [--snapshots 10000] [--rate 500]

Each snapshot reads all accounts, whose sum never changes, and the counts of both sides of all transfers, whose
sum is even. Beside each, for comparison, a plain transaction over the same nodes reads the same.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from contextlib import ExitStack

import psycopg
from rich.console import Console
from rich.table import Table

import shardman
from shardman.client import connection, snapshots
from shardman.testing.cluster import Cluster

ACCOUNTS = 300
BALANCE = 100
CLIENTS = 4
#: The sum and the count of all accounts, read as one row of each node.
LOOK = "select sum(n), sum(moved) from acc"
TABLE = "create table acc (id int primary key, n int not null, moved bigint not null default 0)"
PAY = "update acc set n = n + %s, moved = moved + 1 where id = %s"


class Payers:
    """Clients that transfer at a rate, all in all, as far as the machine can.

    Args:
        rate: transfers a second.
    """

    def __init__(self, cluster: Cluster, rate: float) -> None:
        self._dsns = list(cluster.worker_dsns.values())
        self._pause = CLIENTS / rate
        self._end = threading.Event()
        self.times: list[list[float]] = [[] for _ in range(CLIENTS)]
        self._threads = [threading.Thread(target=self._pay, args=(i,)) for i in range(CLIENTS)]

    def _pay(self, number: int) -> None:
        due = time.monotonic()
        ids = range(number + 1, ACCOUNTS + 1, CLIENTS)
        with shardman.connect(self._dsns[number % len(self._dsns)]) as db:
            while not self._end.is_set():
                one, other = ids[len(self.times[number]) % len(ids)], ids[-1]

                def work(db: shardman.Connection, one: int = one, other: int = other) -> None:
                    db.execute(PAY, (1, one))
                    db.execute(PAY, (-1, other))

                begun = time.monotonic()
                db.run(work, attempts=None)
                self.times[number].append(time.monotonic() - begun)
                due = max(due + self._pause, time.monotonic() - 1)
                self._end.wait(max(0.0, due - time.monotonic()))

    def for_seconds(self, seconds: float) -> None:
        """Runs for so long, by itself."""
        self.start()
        time.sleep(seconds)
        self.end()

    def start(self) -> None:
        """Begins."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Ends."""
        self._end.set()
        for thread in self._threads:
            thread.join()

    def told(self, seconds: float) -> list[str]:
        """The rate, and the waits of one transfer in ms."""
        found = sorted(t for times in self.times for t in times)
        last = found[int(len(found) * 0.99)]
        return [
            f"{len(found) / seconds:,.0f}",
            f"{statistics.median(found) * 1000:.1f}",
            f"{last * 1000:.1f}",
            f"{found[-1] * 1000:.1f}",
        ]


class Readers:
    """What was seen.

    Attributes:
        torn: of snapshots, and of plain transactions.
        again: how often snapshots were taken again, for each snapshot.
    """

    def __init__(self, db: shardman.Connection) -> None:
        self._db = db
        self.torn = {"snapshot": 0, "transaction": 0}
        self.again: list[int] = []
        self.times: list[float] = []

    def look(self, count: int) -> None:
        """So many snapshots."""
        taken = connection.take

        def take(router: object, until: float) -> snapshots.Steps:
            again = yield from snapshots.take(router, until)  # type: ignore[arg-type]
            self.again.append(again)
            return again

        connection.take = take  # type: ignore[assignment]
        try:
            for number in range(count):
                begun = time.monotonic()
                with self._db.snapshot():
                    self._judge("snapshot")
                self.times.append(time.monotonic() - begun)
                if number % 10 == 0:
                    with self._db.transaction():
                        # On all nodes, so that each part of the question is of one of them.
                        for key in range(1, 20):
                            self._db.execute("select n from acc where id = %s", (key,))
                        self._judge("transaction")
        finally:
            connection.take = taken

    def _judge(self, kind: str) -> None:
        row = self._db.execute(LOOK).fetchone()
        assert row is not None
        self.torn[kind] += row[0] != ACCOUNTS * BALANCE or row[1] % 2 != 0


def main() -> None:
    """Runs it, and prints two tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--snapshots", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=500)
    args = parser.parse_args()
    with ExitStack() as stack:
        cluster = Cluster(workers=3)
        stack.callback(cluster.close)
        cluster.sql(1, TABLE)
        insert = "insert into acc select i, %s, 0 from generate_series(1, %s) i"
        cluster.sql(1, insert, (BALANCE, ACCOUNTS))
        done = cluster.cmd("select shardman.create_hash_partitions(1, 'acc', 'id', 6)")
        assert done.status == "success", done
        db = stack.enter_context(shardman.connect(next(iter(cluster.worker_dsns.values()))))
        alone = Payers(cluster, args.rate)
        alone.for_seconds(20)
        payers, readers = Payers(cluster, args.rate), Readers(db)
        payers.start()
        begun = time.monotonic()
        try:
            readers.look(args.snapshots)
        finally:
            seconds = time.monotonic() - begun
            payers.end()
        version = psycopg.connect(cluster.dsn(1)).info.server_version // 10000
    writers = Table(title=f"transfers over two nodes (PostgreSQL {version}), {CLIENTS} clients")
    for name in ("", "a second", "median ms", "99 % ms", "longest ms"):
        writers.add_column(name, justify="right")
    writers.add_row("alone", *alone.told(20))
    writers.add_row("under snapshots", *payers.told(seconds))
    seen = Table(title="what was seen")
    for name in ("", "read", "torn", "taken again", "most in one", "median ms", "longest ms"):
        seen.add_column(name, justify="right")
    again = readers.again
    times = sorted(readers.times)
    seen.add_row(
        "snapshots",
        f"{len(times):,}",
        str(readers.torn["snapshot"]),
        f"{sum(map(bool, again)):,} ({sum(again):,} times)",
        str(max(again)),
        f"{statistics.median(times) * 1000:.1f}",
        f"{times[-1] * 1000:.1f}",
    )
    plain = (len(times) + 9) // 10
    seen.add_row("transactions", f"{plain:,}", str(readers.torn["transaction"]), "", "", "", "")
    console = Console(width=110)
    console.print(writers)
    console.print(seen)


if __name__ == "__main__":
    main()
