"""When the copies of a cluster were whole, as somebody saw it who looked all the time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

from shardman.pg.connection import SyncConnection
from shardman.sql.loader import queries
from shardman.testing.cluster import LORD, Cluster

_EVERY_S = 0.25


class Watch:
    """Looks how many partitions lack replicas.

    Args:
        replevel: replicas that each must have.
    """

    def __init__(self, cluster: Cluster, replevel: int) -> None:
        self._cluster = cluster
        self._replevel = replevel
        self._end = threading.Event()
        self._whole: list[float] = []

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Looks meanwhile."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join(10)

    def whole_after(self, moment: float) -> float | None:
        """Seconds from a moment (of `time.monotonic`) until no partition lacked a replica."""
        return next((at - moment for at in self._whole if at >= moment), None)

    def _run(self) -> None:
        conn: SyncConnection | None = None
        while not self._end.wait(_EVERY_S):
            with suppress(psycopg.Error):
                if conn is None or conn.closed:
                    conn = self._cluster.connect(LORD, connect_timeout=3)
                row = conn.execute(queries("soak")["missing"], (self._replevel,)).fetchone()
                if row == (0,):
                    self._whole.append(time.monotonic())
        if conn is not None:
            conn.close()
