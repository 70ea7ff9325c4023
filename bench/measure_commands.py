"""What clients notice of commands whose nodes follow one after the other: errors and waits."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

from rich.table import Table

from shardman.pg.connection import SyncConnection
from shardman.testing.cluster import Cluster
from shardman.testing.load import Bank, Load

ROWS = 20_000
PARTITIONS = 4
ROUNDS = 5
#: A connection that was refused since its table has another name, or is gone, is no error of the command.
_TABLES = ("t", "u")

Step = tuple[str, str]


def commands(quick: bool) -> Table:
    """Six clients without pauses, two through each worker: one changes a row, one reads it before, one makes a
    row, changes it and drops it. A row that is there and is not found is an error."""
    table = Table(title=f"commands on {ROWS:,} rows, under six clients")
    for column in ("command", "replicas", "times", "done", "longest wait", "repeated", "errors"):
        table.add_column(column, justify="right")
    for level in (0, 1):
        with closing(Cluster(workers=3)) as cluster:
            _fill(cluster, level)
            for name, steps in _kinds(level):
                _measure(table, cluster, name, level, steps, 1 if quick else ROUNDS)
    return table


def _kinds(level: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each with the calls of one round, which lead back to where it began."""
    yield (
        "set_partitions_count",
        tuple(f"select shardman.set_partitions_count('t', {n})" for n in (8, 4, 2, 4)),
    )
    yield (
        "move_part, switch_primary",
        tuple(f"select shardman.move_part('t_0', {n})" for n in (2, 3, 1))
        if level == 0
        else tuple(f"select shardman.switch_primary('t_{k}')" for k in (0, 1, 2, 3)),
    )
    yield (
        "set_replevel",
        tuple(f"select shardman.set_replevel('t', {n})" for n in (1 - level, level)),
    )
    yield (
        "create_hash_partitions, unshard_table",
        (
            "select shardman.unshard_table('u', 1)",
            "select shardman.create_hash_partitions(1, 'u', 'id', 4)",
        ),
    )
    yield (
        "rebalance",
        ("select shardman.rebalance()",),
    )


def _fill(cluster: Cluster, level: int) -> None:
    for name in _TABLES:
        cluster.sql(
            1,
            f"create table {name} (id int primary key, touched bigint not null default 0,"
            " balance bigint not null default 0, filler text)".encode(),
        )
        cluster.sql(
            1,
            f"insert into {name} select i, 0, 0, repeat('x', 60) from generate_series(1, {ROWS}) i".encode(),
        )
        _call(cluster, f"select shardman.create_hash_partitions(1, '{name}', 'id', {PARTITIONS})")
    _call(cluster, f"select shardman.set_replevel('t', {level})")


def _call(cluster: Cluster, call: str) -> None:
    done = cluster.cmd(call.encode(), seconds=600)
    assert done.status in ("success", "done"), (call, done)


def _measure(
    table: Table, cluster: Cluster, name: str, level: int, steps: tuple[str, ...], rounds: int
) -> None:
    bank = Bank("t", ROWS)
    taken: list[float] = []
    work = [bank.increment, bank.read_then_write, _come_and_go]
    # Worker i goes to node i, and does the i-th work: each work comes through two nodes.
    dsns = list(cluster.worker_dsns.values())
    with Load([*dsns, *dsns[1:], dsns[0]], work, workers=6) as load:
        time.sleep(1)
        load.reset_waits()
        for _ in range(rounds):
            for step in steps:
                begun = time.monotonic()
                _call(cluster, step)
                taken.append(time.monotonic() - begun)
        time.sleep(0.5)
        longest = load.longest_s
    kinds = Counter(error.split("\n")[0] for error in load.errors)
    cells = (
        name,
        str(level),
        str(len(taken)),
        str(load.acknowledged),
        f"{longest * 1000:.0f} ms",
        str(load.retried),
        ", ".join(f"{n} x {kind}" for kind, n in kinds.most_common(6)) or "none",
    )
    table.add_row(*cells)
    print(*cells, sep="  ", file=sys.stderr, flush=True)


def _come_and_go(conn: SyncConnection, rng: random.Random) -> int:
    """A row that is made, and must be found by who comes next."""
    row = rng.randint(ROWS + 1, 2_000_000_000)
    conn.execute("insert into t (id) values (%s)", (row,))
    for statement in (
        "update t set touched = touched + 1 where id = %s",
        "delete from t where id = %s",
    ):
        if conn.execute(statement.encode(), (row,)).rowcount != 1:
            raise AssertionError(f"a new row was missing for {statement[:6]}")
    return 0
