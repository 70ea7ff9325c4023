"""What clients notice of commands whose nodes follow one after the other: errors and waits."""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

from rich.table import Table

from shardman.pg.connection import SyncConnection
from shardman.testing.cluster import Cluster
from shardman.testing.load import Bank, Load

ROWS = 20_000
PARTITIONS = 4
ROUNDS = 5


class Kind(NamedTuple):
    """Calls of a round, each as it is written behind ``select shardman.``."""

    name: str
    calls: tuple[str, ...]


def commands(quick: bool) -> Table:
    """Six clients without pauses, through two of three workers. Two change a row, two read it before, two make
    a row, change it and drop it. A row that is there and is not found is an error."""
    table = Table(title=f"commands on {ROWS:,} rows, under six clients")
    for column in (
        "command",
        "replicas",
        "times",
        "transactions",
        "longest wait",
        "repeated",
        "errors",
    ):
        table.add_column(column, justify="right")
    for level in (0, 1):
        with closing(Cluster(workers=3)) as cluster:
            _fill(cluster, level)
            for kind in _kinds(cluster, level):
                _measure(table, cluster, kind, level, 1 if quick or "node" in kind.name else ROUNDS)
    return table


def _kinds(cluster: Cluster, level: int) -> Iterator[Kind]:
    """What leads back to where it began, but for the nodes at the end."""
    if level == 0:
        owner = cluster.value(0, "select owner from shardman.partitions where part_name = 't_0'")
        away = [n for n in (1, 2, 3) if n != owner]
        calls = tuple(f"move_part('t_0', {n})" for n in (*away, owner))
        yield Kind("move_part", calls)
    else:
        copies = (
            "select owner from shardman.partitions where part_name = 't_0' order by prv nulls last"
        )
        nodes = [n for (n,) in cluster.sql(0, copies)]
        yield Kind("switch_primary", tuple(f"switch_primary('t_0', {n})" for n in nodes))
    yield Kind("set_replevel", tuple(f"set_replevel('t', {n})" for n in (1 - level, level)))
    yield Kind("rename_table", ("rename_table('t', 'tt')", "rename_table('tt', 't')"))
    yield Kind(
        "set_partitions_count", tuple(f"set_partitions_count('t', {n})" for n in (8, 4, 2, 4))
    )
    # What is made of its table would keep a node from coming back.
    cluster.sql(3, "set shardman.ddl = 'here'; drop view v")
    dsn = cluster.worker_dsns[3].replace("'", "''")
    yield Kind(
        "drain_node, rm_node, add_node, rebalance",
        ("drain_node(3)", "rm_node(3)", f"add_node('{dsn}')", "rebalance('t')"),
    )


def _fill(cluster: Cluster, level: int) -> None:
    cluster.sql(
        1,
        "create table t (id int primary key, touched bigint not null default 0,"
        " balance bigint not null default 0, filler text)",
    )
    cluster.sql(
        1, "insert into t select i, 0, 0, repeat('x', 60) from generate_series(1, %s) i", (ROWS,)
    )
    _call(cluster, f"create_hash_partitions(1, 't', 'id', {PARTITIONS})")
    # It follows when the table has another name.
    cluster.sql(1, "create view v as select * from t")
    _call(cluster, f"set_replevel('t', {level})")


def _call(cluster: Cluster, call: str) -> None:
    done = cluster.cmd(f"select shardman.{call}".encode(), seconds=600)
    assert done.status in ("success", "done"), (call, done)


def _measure(table: Table, cluster: Cluster, kind: Kind, level: int, rounds: int) -> None:
    bank = Bank("v", ROWS)
    taken: list[float] = []
    work = [bank.increment, bank.read_then_write, _come_and_go]
    # Each work comes through both. Node 3 may be removed.
    one, two = cluster.worker_dsns[1], cluster.worker_dsns[2]
    with Load([one, two, one, two, one, two], work, workers=6) as load:
        time.sleep(1)
        load.reset_waits()
        for _ in range(rounds):
            for call in kind.calls:
                begun = time.monotonic()
                _call(cluster, call)
                taken.append(time.monotonic() - begun)
        time.sleep(0.5)
        longest = load.longest_s
    errors = Counter(error.split("\n")[0] for error in load.errors)
    cells = (
        kind.name,
        str(level),
        f"{len(taken)}, {statistics.median(taken):.1f} s",
        str(load.acknowledged),
        f"{longest * 1000:.0f} ms",
        str(load.retried),
        ", ".join(f"{n} x {error}" for error, n in errors.most_common(6)) or "none",
    )
    table.add_row(*cells)
    print(*cells, sep="  ", file=sys.stderr, flush=True)


def _come_and_go(conn: SyncConnection, rng: random.Random) -> int:
    """A row that is made, and must be found by who comes next."""
    row = rng.randint(ROWS + 1, 2_000_000_000)
    conn.execute("insert into v (id) values (%s)", (row,))
    for statement in (
        "update v set touched = touched + 1 where id = %s",
        "delete from v where id = %s",
    ):
        if conn.execute(statement.encode(), (row,)).rowcount != 1:
            raise AssertionError(f"a new row was missing for {statement[:6]}")
    return 0
