"""Clients that write through all nodes while partitions move, and know what must be there later.

Passengers book seats, move from flight to flight, and airlines add flights. None of it touches a
column that the file has, so the flights themselves can still be compared with it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import LiteralString

import psycopg

from shardman.pg.connection import SyncConnection
from shardman.sql.loader import queries
from shardman.testing.load import Load

CLIENTS_PER_NODE = 2
# Clients that think a little: the wait that a move causes is to be seen, not the one for a processor.
_PAUSE_S = 0.01


@dataclass(frozen=True)
class Seen:
    """What the writers saw during one phase."""

    title: str
    seconds: float
    writes: int
    retried: int
    errors: Sequence[str]
    longest_s: float

    @property
    def rate(self) -> float:
        """Writes a second."""
        return self.writes / self.seconds if self.seconds else 0.0


class Work:
    """The things that a client does. Each returns by how much the sum of all seats taken has grown."""

    def __init__(self, flights: int) -> None:
        self._flights = flights
        self._sql: Mapping[str, LiteralString] = queries("demo")
        #: Ids of acknowledged new flights.
        self.added: list[int] = []

    def book(self, conn: SyncConnection, rng: random.Random) -> int:
        """Takes a seat: one statement, committed by itself."""
        done = conn.execute(self._sql["book"], (self._any(rng),))
        _one_row(done)
        return 1

    def look_and_book(self, conn: SyncConnection, rng: random.Random) -> int:
        """Looks, thinks, and takes a seat, in one transaction."""
        flight = self._any(rng)
        with conn.transaction():
            _one_row(conn.execute(self._sql["look"], (flight,)))
            time.sleep(rng.random() * 0.003)
            _one_row(conn.execute(self._sql["book"], (flight,)))
        return 1

    def rebook(self, conn: SyncConnection, rng: random.Random) -> int:
        """Moves a passenger to another flight: one transaction, mostly on two nodes."""
        # In the order of ids, so that two of us never wait for each other.
        changes = sorted(((self._any(rng), -1), (self._any(rng), 1)))
        with conn.transaction():
            for flight, change in changes:
                _one_row(conn.execute(self._sql["rebook"], (change, flight)))
        return 0

    def add_flight(self, conn: SyncConnection, rng: random.Random) -> int:
        """Adds a flight; its id comes from the sequence of the node that we talk to."""
        row = conn.execute(self._sql["add_flight"], (rng.randint(1, 9000),)).fetchone()
        if row is None or not isinstance(row[0], int):
            raise AssertionError("a new flight has no id")
        self.added.append(row[0])
        return 0

    def mixed(self, conn: SyncConnection, rng: random.Random) -> int:
        """One of all these."""
        (what,) = rng.choices(
            (self.book, self.look_and_book, self.rebook, self.add_flight), (5, 2, 2, 1)
        )
        return what(conn, rng)

    def _any(self, rng: random.Random) -> int:
        return rng.randint(1, self._flights)


def _one_row(cursor: psycopg.Cursor[tuple[object, ...]]) -> None:
    if cursor.rowcount != 1:
        raise AssertionError(f"a flight was found {cursor.rowcount} times instead of once")


class Writers:
    """Clients on every node, observed phase by phase.

    Args:
        dsns: of the nodes; each gets some clients.
        flights: how many there are.
    """

    def __init__(self, dsns: Sequence[str], flights: int) -> None:
        self.work = Work(flights)
        self.nodes = len(dsns)
        self.clients = CLIENTS_PER_NODE * len(dsns)
        self.load = Load(dsns, [self.work.mixed], workers=self.clients, pause=_PAUSE_S)
        self.phases: list[Seen] = []
        self._mark = (0.0, 0, 0, 0)

    def begin_phase(self) -> None:
        """From now on is counted for the next phase."""
        self.load.reset_waits()
        self._mark = self._now()

    def end_phase(self, title: str) -> Seen:
        """What was seen since the phase began."""
        begun, writes, retried, errors = self._mark
        now = self._now()
        seen = Seen(
            title,
            now[0] - begun,
            now[1] - writes,
            now[2] - retried,
            self.load.errors[errors:],
            self.load.longest_s,
        )
        self.phases.append(seen)
        return seen

    def so_far(self) -> str:
        """The phase until now, in a few words."""
        begun, writes, _, errors = self._mark
        now = self._now()
        rate = (now[1] - writes) / max(now[0] - begun, 0.001)
        return (
            f"{rate:,.0f} writes/s, {now[3] - errors} errors, "
            f"longest wait {self.load.longest_s * 1000:.0f} ms"
        )

    def _now(self) -> tuple[float, int, int, int]:
        load = self.load
        return time.monotonic(), load.acknowledged, load.retried, len(load.errors)
