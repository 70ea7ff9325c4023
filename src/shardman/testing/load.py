"""A load that knows what the database must contain afterwards.

Each worker keeps a connection to one node and counts what was acknowledged: a bank whose total must
stay, counters whose sum must equal the acknowledged increments, and a set whose acknowledged inserts
must all be there exactly once. Serialization failures are part of `postgres_fdw`'s contract (its remote
transactions are repeatable read); they are counted and tried again like any client would.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

import psycopg

from shardman.pg.connection import SyncConnection
from shardman.testing.cluster import Cluster

#: What a client must be ready to repeat: the transaction did not happen.
REPEATED = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)
#: The same where several rows or tables are waited for: a circle of waits over nodes ends with 57014.
REPEATED_IN_CIRCLES = (*REPEATED, psycopg.errors.QueryCanceled)

#: Nothing was done: a server could not be connected to (57P03: it is starting up or going down).
NOT_BEGUN = ("08001", "57P03")

Work = Callable[[SyncConnection, random.Random], int]


#: What took longer is kept with its time, in seconds.
SLOW_S = 1.0


@dataclass(frozen=True)
class Wait:
    """A client that had no answer for long."""

    begun: float
    seconds: float


@dataclass
class Tally:
    """What one worker saw."""

    acknowledged: int = 0
    retried: int = 0
    errors: list[str] = field(default_factory=list)
    unknown: int = 0
    refused: int = 0
    longest_s: float = 0.0
    longest_at: float = 0.0
    slow: list[Wait] = field(default_factory=list)
    inserted: list[int] = field(default_factory=list)
    maybe: list[int] = field(default_factory=list)
    added: int = 0


@dataclass
class Bank:
    """Work on a table of accounts ``(id, balance, touched, …)`` and a table of marks ``(id)``.

    Args:
        accounts: name of the accounts table; ids are 1 … ``size``.
        marks: name of the set's table, or None.
        size: number of accounts.
    """

    accounts: str
    size: int
    marks: str | None = None

    def increment(self, conn: SyncConnection, rng: random.Random) -> int:
        """One autocommit update."""
        row = conn.execute(
            f"update {self.accounts} set touched = touched + 1 where id = %s returning id",
            (rng.randint(1, self.size),),
        ).fetchone()
        if row is None:
            raise AssertionError("an account was missing")
        return 1

    def read_then_write(self, conn: SyncConnection, rng: random.Random) -> int:
        """Reads a row, thinks, writes it."""
        account = rng.randint(1, self.size)
        with conn.transaction():
            row = conn.execute(
                f"select touched from {self.accounts} where id = %s", (account,)
            ).fetchone()
            if row is None:
                raise AssertionError(f"account {account} was missing")
            time.sleep(rng.random() * 0.005)
            done = conn.execute(
                f"update {self.accounts} set touched = touched + 1 where id = %s", (account,)
            )
            if done.rowcount != 1:
                raise AssertionError(f"account {account} was missing for an update")
        return 1

    def pair(self, rng: random.Random) -> list[int]:
        """Two accounts that a transfer is between; mostly of different partitions."""
        return rng.sample(range(1, self.size + 1), 2)

    def transfer(self, conn: SyncConnection, rng: random.Random) -> int:
        """Moves money between two accounts."""
        one, other = sorted(self.pair(rng))
        amount = rng.randint(1, 50)
        with conn.transaction():
            for account, change in ((one, -amount), (other, amount)):
                done = conn.execute(
                    f"update {self.accounts} set balance = balance + %s where id = %s",
                    (change, account),
                )
                if done.rowcount != 1:
                    raise AssertionError(f"account {account} was missing for a transfer")
        return 0


class Load:
    """Runs work through nodes until stopped.

    Args:
        dsns: of the nodes; worker i uses the i-th, round and round.
        work: worker i does the i-th, round and round.
        reconnect: whether a lost connection is part of the plan (nodes are killed), not an error.
        first_mark: marks are numbered from it on, for a table that has some.
        pause: how long a client thinks between two transactions, in seconds; on average.
    """

    def __init__(
        self,
        dsns: Sequence[str],
        work: Sequence[Work],
        workers: int = 6,
        marks: str | None = None,
        reconnect: bool = False,
        pause: float = 0.0,
        first_mark: int = 0,
    ) -> None:
        self._dsns = dsns
        self._first_mark = first_mark
        self._work = work
        self._marks = marks
        self._reconnect = reconnect
        self._pause = pause
        self._stop = threading.Event()
        self.tallies = [Tally() for _ in range(workers)]
        self._threads = [
            threading.Thread(target=self._run, args=(i,), daemon=True) for i in range(workers)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def reset_waits(self) -> None:
        """Forgets the longest waits so far."""
        for tally in self.tallies:
            tally.longest_s = 0.0

    @property
    def acknowledged(self) -> int:
        return sum(t.acknowledged for t in self.tallies)

    @property
    def added(self) -> int:
        """Acknowledged increments."""
        return sum(t.added for t in self.tallies)

    @property
    def retried(self) -> int:
        return sum(t.retried for t in self.tallies)

    @property
    def errors(self) -> list[str]:
        return [e for t in self.tallies for e in t.errors]

    @property
    def longest_s(self) -> float:
        return max(t.longest_s for t in self.tallies)

    def _run(self, number: int) -> None:
        tally, rng = self.tallies[number], random.Random(number)
        work = self._work[number % len(self._work)]
        serial = 0
        conn: SyncConnection | None = None
        while not self._stop.is_set():
            try:
                if conn is None or conn.closed:
                    conn = psycopg.connect(self._dsns[number % len(self._dsns)], autocommit=True)
                    conn.prepare_threshold = 5 if number % 2 else None
                serial += 1
                self._once(conn, tally, rng, work, self._first_mark + number * 10_000_000 + serial)
            except psycopg.Error as error:
                self._failed(tally, error, connected=conn is not None)
                if conn is not None and (conn.closed or conn.broken):
                    conn = None
            except AssertionError as error:
                tally.errors.append(str(error))
            if self._pause:
                self._stop.wait(rng.random() * 2 * self._pause)
        if conn is not None:
            conn.close()

    def _failed(self, tally: Tally, error: psycopg.Error, connected: bool) -> None:
        if isinstance(error, REPEATED):
            tally.retried += 1
        elif self._reconnect:
            if connected and error.sqlstate not in NOT_BEGUN:
                tally.unknown += 1
            else:
                tally.refused += 1
            self._stop.wait(0.1)
        else:
            tally.errors.append(f"{error.sqlstate}: {error}")

    def _once(
        self,
        conn: SyncConnection,
        tally: Tally,
        rng: random.Random,
        work: Work,
        mark: int,
    ) -> None:
        begun = time.monotonic()
        try:
            if self._marks is not None and mark % 4 == 0:
                tally.maybe.append(mark)
                conn.execute(f"insert into {self._marks} (id) values (%s)", (mark,))
                tally.inserted.append(tally.maybe.pop())
            else:
                tally.added += work(conn, rng)
            tally.acknowledged += 1
        finally:
            took = time.monotonic() - begun
            if took > tally.longest_s:
                tally.longest_s, tally.longest_at = took, begun
            if took > SLOW_S:
                tally.slow.append(Wait(begun, took))


def make_bank(cluster: Cluster, size: int, partitions: int = 6) -> Bank:
    """Accounts and marks, sharded by ``id`` and spread over all workers."""
    cluster.sql(
        1,
        "create table accounts (id int primary key, balance bigint not null default 1000,"
        " touched bigint not null default 0)",
    )
    cluster.sql(1, "create table marks (id bigint primary key)")
    cluster.sql(1, "insert into accounts (id) select generate_series(1, %s)", (size,))
    for table in ("accounts", "marks"):
        done = cluster.cmd(
            "select shardman.create_hash_partitions(1, %s, 'id', %s)", (table, partitions)
        )
        if done.status != "success":
            raise AssertionError(done)
    return Bank("accounts", size)
