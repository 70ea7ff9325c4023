"""How long a change of the metadata takes to reach every node."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack, closing

from rich.table import Table

from shardman.testing.cluster import Cluster

CHANGES = 20


def metadata(quick: bool) -> Table:
    """The lord changes a row; each node is asked until it has it."""
    table = Table(title="a metadata change reaches all nodes")
    for column in ("nodes", "median ms", "worst ms"):
        table.add_column(column, justify="right")
    for nodes in (3,) if quick else (3, 8, 16):
        with closing(Cluster(workers=nodes)) as cluster:
            taken = [_change(cluster, n) for n in range(CHANGES)]
        table.add_row(
            str(nodes), f"{statistics.median(taken) * 1000:.1f}", f"{max(taken) * 1000:.1f}"
        )
    return table


def _change(cluster: Cluster, number: int) -> float:
    """Seconds until the last node has the change."""
    with ExitStack() as stack:
        conns = [stack.enter_context(cluster.connect(n)) for n in cluster.worker_dsns]
        lord = stack.enter_context(cluster.connect(0))
        begun = time.perf_counter()
        lord.execute(
            "insert into shardman.settings values ('bench', %s)"
            " on conflict (name) do update set value = excluded.value",
            (str(number),),
        )
        for conn in conns:
            while conn.execute(
                "select value from shardman.settings where name = 'bench'"
            ).fetchone() != (str(number),):
                pass
        return time.perf_counter() - begun
