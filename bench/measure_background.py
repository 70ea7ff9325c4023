"""What beats, looks and the scrub cost who writes: with the shardlord, and while it is stopped, by turns."""

from __future__ import annotations

import os
import signal
import statistics
from contextlib import closing

from rich.table import Table

from measure_replicas import _cluster, _pgbench, _set
from shardman.testing.cluster import Cluster


def background(quick: bool) -> Table:
    """Twelve partitions with a synchronous replica each; `scrub_every` as it is, and all the time."""
    rounds, seconds = (10, 4) if quick else (12, 5)
    table = Table(title="single-row updates, 8 clients: the shardlord at work, and stopped")
    for column in ("scrub", "writes/s", "stopped", "ratio, median of pairs", "pairs"):
        table.add_column(column, justify="right")
    with closing(_cluster((12,))) as cluster:
        _set(cluster, "t12", 1, sync=True)
        for scrub, every in (("as it is", "60"), ("all the time", "1")):
            cluster.sql(0, "delete from shardman.settings where name = 'scrub_every'")
            cluster.sql(0, "insert into shardman.settings values ('scrub_every', %s)", (every,))
            pairs = [_pair(cluster, turn, seconds) for turn in range(rounds)]
            table.add_row(
                scrub,
                f"{statistics.median(p[0] for p in pairs):,.0f}",
                f"{statistics.median(p[1] for p in pairs):,.0f}",
                f"{statistics.median(p[0] / p[1] for p in pairs):.3f}",
                str(rounds),
            )
    return table


def _pair(cluster: Cluster, turn: int, seconds: int) -> tuple[float, float]:
    """Writes a second with the shardlord and without; who comes first changes."""
    pid = cluster.lord_pid
    assert pid is not None
    found: dict[bool, float] = {}
    for stopped in (False, True) if turn % 2 else (True, False):
        if stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            found[stopped] = _pgbench(cluster.dsn(1), "t12", seconds).tps
        finally:
            os.kill(pid, signal.SIGCONT)
    return found[False], found[True]
