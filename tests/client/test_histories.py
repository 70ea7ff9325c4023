"""Clients append to lists on several nodes and read them while partitions move: no anomaly that docs do not
allow."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

import shardman
from shardman.testing.cluster import Cluster
from shardman.testing.histories import Append, Outcome, Read, Txn, anomalies

KEYS = 9
CLIENTS = 4
SECONDS = 8.0
DONE, GONE, OPEN = Outcome.COMMITTED, Outcome.ABORTED, Outcome.UNKNOWN


def txn(number: int, *ops: Append | Read, outcome: Outcome = DONE, snapshot: bool = False) -> Txn:
    return Txn(number, ops, outcome, snapshot)


@pytest.mark.parametrize(
    ("history", "final", "told"),
    [
        ([txn(1, Append(1, 1), Append(2, 2)), txn(2, Read(1, (1,)), Read(2, ()))], {1: (1,), 2: (2,)}, None),
        ([txn(1, Append(1, 1), Append(2, 2), outcome=OPEN)], {1: (), 2: ()}, None),
        ([txn(1, Append(1, 1))], {1: ()}, "lost"),
        ([txn(1, Append(1, 1))], {1: (1, 1)}, "doubled"),
        ([txn(1, Append(1, 1), Append(2, 2), outcome=OPEN)], {1: (1,), 2: ()}, "torn"),
        ([txn(1, Append(1, 1), outcome=GONE)], {1: (1,)}, "G1a"),
        ([txn(1, Append(1, 1), outcome=GONE), txn(2, Read(1, (1,)))], {1: ()}, "G1a"),
        ([txn(1, Append(1, 1)), txn(2, Append(1, 2), Read(1, (2,)))], {1: (1, 2)}, "G1a"),
        ([txn(1, Append(1, 1), Append(1, 2)), txn(2, Read(1, (1,)))], {1: (1, 2)}, "G1b"),
        ([txn(1, Append(1, 1), Append(2, 2)), txn(2, Append(1, 3), Append(2, 4))],
         {1: (1, 3), 2: (4, 2)}, "G0"),
        ([txn(1, Append(1, 1), Read(2, (2,))), txn(2, Append(2, 2), Read(1, (1,)))],
         {1: (1,), 2: (2,)}, "G1c"),
        ([txn(1, Append(1, 1), Append(2, 2)), txn(2, Read(1, (1,)), Read(2, ()), snapshot=True)],
         {1: (1,), 2: (2,)}, "torn"),
    ],
)  # fmt: skip
def test_the_rules(history: list[Txn], final: dict[int, tuple[int, ...]], told: str | None) -> None:
    found = anomalies(history, final)
    assert [f.split(":")[0] for f in found] == ([] if told is None else [told]), found


class Recorder:
    """A client, and what it saw."""

    def __init__(self, db: shardman.Connection, numbers: Iterator[int], seed: int) -> None:
        self.db = db
        self.numbers = numbers
        self.random = random.Random(seed)
        self.history: list[Txn] = []

    def work(self, ends: threading.Event) -> None:
        while not ends.is_set():
            snapshot = self.random.random() < 0.25
            self.history.append(self.look() if snapshot else self.transact())

    def look(self) -> Txn:
        number = next(self.numbers)
        keys = self.random.sample(range(KEYS), 4)
        try:
            with self.db.snapshot():
                return Txn(number, tuple(map(self.read, keys)), Outcome.COMMITTED, snapshot=True)
        except psycopg.errors.SerializationFailure:
            return Txn(number, (), Outcome.ABORTED, snapshot=True)

    def transact(self) -> Txn:
        number = next(self.numbers)
        ops: list[Append | Read] = []
        try:
            # In one order, so that nobody waits in a circle.
            for key in sorted(self.random.choices(range(KEYS), k=self.random.randint(1, 4))):
                append = self.random.random() < 0.6
                ops.append(self.append(key) if append else self.read(key))
            if self.random.random() < 0.1:
                self.db.rollback()
                return Txn(number, tuple(ops), Outcome.ABORTED)
        except psycopg.Error:
            self.db.rollback()
            return Txn(number, tuple(ops), Outcome.ABORTED)
        try:
            self.db.commit()
        except psycopg.Error:
            self.db.rollback()
            return Txn(number, tuple(ops), Outcome.UNKNOWN)
        return Txn(number, tuple(ops), Outcome.COMMITTED)

    def append(self, key: int) -> Append:
        value = next(self.numbers)
        self.db.execute("update lists set v = v || %s where k = %s", (value, key))
        return Append(key, value)

    def read(self, key: int) -> Read:
        row = self.db.execute("select v from lists where k = %s", (key,)).fetchone()
        assert row is not None
        return Read(key, tuple(row[0]))


def test_what_clients_saw(cluster: Cluster) -> None:
    cluster.sql(1, "create table lists (k int primary key, v int[] not null default '{}')")
    cluster.sql(1, f"insert into lists select generate_series(0, {KEYS - 1})")  # type: ignore[arg-type]
    done = cluster.cmd("select shardman.create_hash_partitions(1, 'lists', 'k', 6)")
    assert done.status == "success", done
    numbers, ends = itertools.count(), threading.Event()

    def client(i: int) -> list[Txn]:
        with shardman.connect(cluster.dsn(1 + i % 3)) as db:
            recorder = Recorder(db, numbers, i)
            recorder.work(ends)
            return recorder.history

    with ThreadPoolExecutor(CLIENTS) as pool:
        running = [pool.submit(client, i) for i in range(CLIENTS)]
        try:
            until, part = time.monotonic() + SECONDS, 0
            while time.monotonic() < until:
                owner = cluster.value(
                    0,
                    "select owner from shardman.partitions where part_name = %s",
                    (f"lists_{part}",),
                )
                moved = cluster.cmd(
                    "select shardman.move_part(%s, %s)", (f"lists_{part}", owner % 3 + 1)
                )
                assert moved.status == "success", moved
                part = (part + 1) % 6
        finally:
            ends.set()
        history = [t for r in running for t in r.result(60)]
    final = {k: tuple(v) for k, v in cluster.sql(2, "select k, v from lists")}
    assert anomalies(history, final) == []
    committed = [t for t in history if t.outcome is Outcome.COMMITTED]
    assert sum(len({a.key for a in t.appends}) > 1 for t in committed) > 20
    assert sum(t.snapshot for t in committed) > 20
