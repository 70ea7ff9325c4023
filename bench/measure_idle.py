"""What a cluster costs that has nothing to do: transactions and processor time.

Every watcher of the shardlord asks something now and then. Transactions are counted by PostgreSQL itself
(``pg_stat_database``), so they are the same on every machine; the processor's time is of this one. And how
long ``shardman status`` takes, the start of the program included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from shardman.local.process import children_of
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

#: Until what the conversion has left to do is done.
SETTLE_S = 15.0
#: The best of so many is told: what else the machine does only makes it longer.
STATUS_RUNS = 3
QUICK = ((3, 12),)
NORMAL = ((3, 12), (3, 512), (8, 12))
#: A cluster of these takes some minutes to make.
LARGE = tuple((nodes, parts) for nodes in (3, 8, 16) for parts in (12, 128, 512, 2048, 4096))
_TICKS = os.sysconf("SC_CLK_TCK")
#: A query over so many partitions needs this many locks for each.
_LOCKS = 8

_COMMITS = """
select sum(xact_commit + xact_rollback)::bigint from pg_stat_database where datname = current_database()
"""


@dataclass(frozen=True)
class Picture:
    """Counters at one moment: transactions by node; seconds of processor by node, None is the shardlord."""

    at: float
    transactions: dict[int, int]
    seconds: dict[int | None, float]


def idle(quick: bool) -> Table:
    """The section of ``make bench``."""
    return measure(QUICK if quick else NORMAL, 20.0)


def measure(sizes: Iterable[tuple[int, int]], seconds: float) -> Table:
    """One row for each size.

    Args:
        sizes: workers and partitions.
        seconds: how long each is watched.
    """
    table = Table(
        title=f"an idle cluster, {seconds:.0f} s each: transactions, processor time, shardman status"
    )
    # tx/s: transactions per second, of our sessions mostly one statement each.
    for column in (
        "workers",
        "parts",
        "tx/s lord",
        "a worker",
        "all",
        "CPU% shardlord",
        "lord",
        "a worker",
        "status s",
    ):
        table.add_column(column, justify="right")
    for workers, parts in sizes:
        table.add_row(*_row(workers, parts, seconds))
    return table


def _row(workers: int, parts: int, seconds: float) -> Iterable[str]:
    settings = {"max_locks_per_transaction": max(1024, parts * _LOCKS // 10)}
    with closing(Cluster(workers=workers, settings=settings)) as cluster:
        cluster.sql(1, "create table t (id bigint primary key)")
        done = cluster.cmd(
            b"select shardman.create_hash_partitions(1, 't', 'id', %s, false)",
            (parts,),
            seconds=1800,
        )
        assert done.status == "success", done
        _settle(cluster)
        begin = _look(cluster)
        time.sleep(seconds)
        end = _look(cluster)
        status = min(_status(cluster) for _ in range(STATUS_RUNS))
    took = end.at - begin.at
    tx = {n: (end.transactions[n] - begin.transactions[n]) / took for n in end.transactions}
    cpu = {n: 100 * (end.seconds[n] - begin.seconds[n]) / took for n in end.seconds}
    own = sum(tx[n] for n in tx if n)
    yield from (
        str(workers),
        str(parts),
        f"{tx[0]:.1f}",
        f"{own / workers:.1f}",
        f"{tx[0] + own:.1f}",
    )
    busy = sum(cpu[n] for n in cpu if n)
    yield from (f"{cpu[None]:.1f}", f"{cpu[0]:.1f}", f"{busy / workers:.1f}", f"{status:.2f}")


def _settle(cluster: Cluster) -> None:
    """Every node has all partitions, and autovacuum nothing to do any more."""
    for node in (0, *cluster.worker_dsns):
        eventually(
            f"node {node} is in line",
            lambda at=node: cluster.value(at, "select count(*) from shardman.drift"),
            until=lambda differences: differences == 0,
            seconds=900,
            every=1,
        )
        with cluster.connect(node) as conn:
            conn.execute("vacuum analyze")
    time.sleep(SETTLE_S)


def _status(cluster: Cluster) -> float:
    """Seconds that ``shardman status`` takes."""
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "shardman", "status", "--dsn", cluster.dsn(1)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - begun


def _look(cluster: Cluster) -> Picture:
    nodes = (0, *cluster.worker_dsns)
    # A session reports what it has done at most once a second, so the last second may be missing at both ends.
    transactions = {n: int(cluster.value(n, _COMMITS)) for n in nodes}
    seconds: dict[int | None, float] = {n: _of_server(cluster, n) for n in nodes}
    assert cluster.lord_pid is not None
    seconds[None] = _of_process(cluster.lord_pid)
    return Picture(time.monotonic(), transactions, seconds)


def _of_server(cluster: Cluster, node: int) -> float:
    """Of the postmaster, of those of its children that have ended, and of those that live."""
    pid = cluster.local.server(node).pid()
    assert pid is not None
    return _of_process(pid, ended=True) + sum(_of_process(child) for child in children_of(pid))


def _of_process(pid: int, *, ended: bool = False) -> float:
    """Seconds of processor time, user and system; with ``ended`` also its children's that have ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:  # it has ended a moment ago
        return 0.0
    fields = stat.rpartition(")")[2].split()
    return sum(map(int, fields[11:15] if ended else fields[11:13])) / _TICKS


def main() -> None:
    """Prints the table for the sizes asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", help="WORKERSxPARTITIONS, such as 3x12 16x4096")
    parser.add_argument(
        "--large", action="store_true", help="3, 8, 16 workers, 12 to 4096 partitions"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each is watched")
    args = parser.parse_args()
    asked = [_size(parser, text) for text in args.sizes]
    Console().print(measure(asked or (LARGE if args.large else NORMAL), args.seconds))


def _size(parser: argparse.ArgumentParser, text: str) -> tuple[int, int]:
    workers, x, parts = text.partition("x")
    if not (x and workers.isdigit() and parts.isdigit()):
        parser.error(f"{text} is not WORKERSxPARTITIONS")
    return int(workers), int(parts)


if __name__ == "__main__":
    main()
