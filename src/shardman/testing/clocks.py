"""How long the clients of a node that was struck notice it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import psycopg

from shardman.testing.cluster import Cluster


@dataclass
class Clocked:
    """From a fault to the first acknowledged write to a row of the nodes that it struck."""

    fault: str
    seconds: float | None = None


class Clocks:
    """A client for each row of a node that was struck.

    Args:
        table: one with columns id and touched; its rows are used to see when clients go on.
    """

    def __init__(self, cluster: Cluster, rng: random.Random, table: str) -> None:
        self._cluster = cluster
        self._rng = rng
        self._table = table
        self.clocked: list[Clocked] = []
        self._clocks: list[threading.Thread] = []

    def end(self) -> None:
        """Waits until all clocks have stopped."""
        for clock in self._clocks:
            clock.join(120)

    def rows(self, nodes: Iterable[int]) -> list[int]:
        """A row on each of the nodes."""
        ids = []
        for node in nodes:
            with suppress(psycopg.Error), self._cluster.connect(node, connect_timeout=3) as conn:
                row = conn.execute(
                    f"select min(id) from {self._table} where tableoid::regclass::text like '%\\_data'"
                ).fetchone()
                ids += [row[0]] if row and row[0] is not None else []
        return ids

    def start(self, fault: str, others: list[int], ids: list[int]) -> None:
        """Writes to each of the rows, through any of the other nodes."""
        for row in ids:
            clocked = Clocked(fault)
            self.clocked.append(clocked)
            thread = threading.Thread(
                target=self._write, args=(self._rng.choice(others), row, clocked), daemon=True
            )
            thread.start()
            self._clocks.append(thread)

    def _write(self, node: int, row: int, clocked: Clocked) -> None:
        """A client that tries again until it succeeds. The write changes nothing."""
        begun = time.monotonic()
        while clocked.seconds is None and time.monotonic() - begun < 120:
            with suppress(psycopg.Error), self._cluster.connect(node, connect_timeout=5) as conn:
                conn.execute(f"update {self._table} set id = id where id = %s", (row,))
                clocked.seconds = time.monotonic() - begun
            time.sleep(0.02)
