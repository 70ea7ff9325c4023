"""What clients notice of DDL: how long it takes, how often it is sent, and the longest wait of a writer."""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import closing
from itertools import cycle

import psycopg
from rich.table import Table

from shardman.testing.cluster import Cluster
from shardman.testing.load import Bank, Load
from timing import seconds

ROWS = 100_000
PARTITIONS = 6
#: Each kind and what takes it back, both sent; %s stands for the table.
KINDS = {
    "ADD COLUMN": ("alter table %s add extra int", "alter table %s drop extra"),
    "ADD COLUMN … DEFAULT 1": (
        "alter table %s add extra int not null default 1",
        "alter table %s drop extra",
    ),
    "ADD CHECK": (
        "alter table %s add constraint able check (id > 0)",
        "alter table %s drop constraint able",
    ),
    "SET NOT NULL": (
        "alter table %s alter filler set not null",
        "alter table %s alter filler drop not null",
    ),
    "SET DEFAULT": (
        "alter table %s alter filler set default 'x'",
        "alter table %s alter filler drop default",
    ),
    "RENAME COLUMN": (
        "alter table %s rename filler to padding",
        "alter table %s rename padding to filler",
    ),
    "ALTER TYPE (rewrites)": (
        "alter table %s alter size type bigint",
        "alter table %s alter size type int",
    ),
    "CREATE INDEX": ("create index by_size on %s (size)", "drop index by_size"),
    "COMMENT": ("comment on table %s is 'said'", "comment on table %s is null"),
    "GRANT": ("grant select on %s to pg_monitor", "revoke select on %s from pg_monitor"),
}

_REPEATED = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
)


def ddl(quick: bool) -> Table:
    """Six writers without pauses, half of them read before they write; each statement is sent to one node after
    the other. Repeated: what clients had to send again (40001, 40P01)."""
    table = Table(title=f"DDL of {ROWS:,} rows in {PARTITIONS} partitions, under six writers")
    for column in ("statement", "replicas", "tries", "s", "longest wait", "repeated", "errors"):
        table.add_column(column, justify="right")
    rounds = 1 if quick else 5
    for level in (0, 1):
        with closing(Cluster(workers=3)) as cluster:
            _fill(cluster, level)
            for kind, statements in KINDS.items():
                _add(table, kind, str(level), *_measure(cluster, statements, rounds))
            _add(table, "create_index_concurrently", str(level), *_concurrently(cluster))
    return table


def _add(table: Table, *cells: str) -> None:
    """Shown at once too: the whole takes minutes."""
    table.add_row(*cells)
    print(*cells, sep="  ", file=sys.stderr, flush=True)


def _fill(cluster: Cluster, level: int) -> None:
    cluster.sql(
        1,
        "create table t (id int primary key, touched bigint not null default 0,"
        " balance bigint not null default 0, size int not null default 1, filler text)",
    )
    cluster.sql(
        1, "insert into t select i, 0, 0, i, repeat('x', 60) from generate_series(1, %s) i", (ROWS,)
    )
    for command in (
        f"select shardman.create_hash_partitions(1, 't', 'id', {PARTITIONS})",
        f"select shardman.set_replevel('t', {level})",
    ):
        done = cluster.cmd(command, seconds=600)
        assert done.status in ("success", "done"), done


def _load(cluster: Cluster) -> Load:
    bank = Bank("t", ROWS)
    return Load(
        list(cluster.worker_dsns.values()), [bank.increment, bank.read_then_write], workers=6
    )


def _measure(cluster: Cluster, statements: tuple[str, str], rounds: int) -> tuple[str, ...]:
    """Tries, seconds, longest wait and errors, of both statements together: each changes the table."""
    taken, waits, tries = [], [], 0
    nodes = cycle(cluster.worker_dsns.values())
    with _load(cluster) as load:
        time.sleep(0.5)
        for _ in range(rounds):
            for statement in statements:
                load.reset_waits()
                with psycopg.connect(next(nodes), autocommit=True) as conn:
                    begun = time.perf_counter()
                    try:
                        tries += _until_done(conn, statement.replace("%s", "t"))
                    except psycopg.errors.FeatureNotSupported as refused:
                        return "-", "-", "-", "-", f"refused: {refused.diag.message_primary}"
                    taken.append(time.perf_counter() - begun)
                time.sleep(0.1)
                waits.append(load.longest_s)
    return (
        f"{tries / (2 * rounds):.1f}",
        f"{statistics.median(taken):.2f}",
        _shown(waits),
        str(load.retried),
        str(len(load.errors)),
    )


def _until_done(conn: psycopg.Connection[tuple[object, ...]], statement: str) -> int:
    """How often it had to be sent, as the errors that it gives under load advise."""
    for number in range(1, 100):
        try:
            conn.execute(statement.encode())
            return number
        except _REPEATED:
            continue
    raise AssertionError(f"in vain: {statement}")


def _concurrently(cluster: Cluster) -> tuple[str, ...]:
    with _load(cluster) as load:
        time.sleep(0.5)
        load.reset_waits()

        def build() -> None:
            done = cluster.cmd(
                "select shardman.create_index_concurrently('create index by_size on t (size)')",
                seconds=600,
            )
            assert done.status in ("success", "done"), done

        took = seconds(build)
    return "1.0", f"{took:.2f}", _shown([load.longest_s]), str(load.retried), str(len(load.errors))


def _shown(waits: list[float]) -> str:
    return f"{statistics.median(waits) * 1000:.0f} ms (worst {max(waits) * 1000:.0f})"
