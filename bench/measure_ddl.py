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
#: How often a statement that found no moment is sent.
MOST_TRIES = 3
#: Each kind and what takes it back, both sent; %s stands for the table.
KINDS = {
    "ADD COLUMN": ("alter table %s add extra int", "alter table %s drop extra"),
    "ADD COLUMN … DEFAULT 1": (
        "alter table %s add more int not null default 1",
        "alter table %s drop more",
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


#: Replicas, what writers do, and how often each statement is sent; the second where replicas wait for the gate.
WAYS = (
    ("0", "half read first", 5),
    ("1", "write at once", 5),
    ("1", "half read first", 1),
)


def ddl(quick: bool) -> Table:
    """Six writers without pauses; each statement is sent to one node after the other. Repeated: what clients
    had to send again (40001, 40P01). In vain: no moment was found for it in several times half a minute."""
    table = Table(title=f"DDL of {ROWS:,} rows in {PARTITIONS} partitions, under six writers")
    columns = "statement", "replicas", "writers", "tries", "s", "longest wait", "repeated", "errors"
    for column in columns:
        table.add_column(column, justify="right")
    for level, writers, rounds in WAYS:
        with closing(Cluster(workers=3)) as cluster:
            _fill(cluster, int(level))
            for kind, statements in KINDS.items():
                found = _measure(cluster, statements, 1 if quick else rounds, writers)
                _add(table, kind, level, writers, *found)
            built = _concurrently(cluster, writers)
            _add(table, "create_index_concurrently", level, writers, *built)
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


def _load(cluster: Cluster, writers: str) -> Load:
    bank = Bank("t", ROWS)
    work = [bank.increment, *([bank.read_then_write] if "read" in writers else [])]
    return Load(list(cluster.worker_dsns.values()), work, workers=6)


def _measure(
    cluster: Cluster, statements: tuple[str, str], rounds: int, writers: str
) -> tuple[str, ...]:
    """Tries, seconds, longest wait and errors, of both statements together: each changes the table."""
    taken: list[float] = []
    waits: list[float] = []
    tries = 0
    nodes = cycle(cluster.worker_dsns.values())
    with _load(cluster, writers) as load:
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
                    except InVainError:
                        return (
                            f"{MOST_TRIES}",
                            "in vain",
                            "-",
                            str(load.retried),
                            str(len(load.errors)),
                        )
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


class InVainError(Exception):
    """No moment was found for a statement."""


def _until_done(conn: psycopg.Connection[tuple[object, ...]], statement: str) -> int:
    """How often it had to be sent, as the errors that it gives under load advise."""
    for number in range(1, MOST_TRIES + 1):
        try:
            conn.execute(statement.encode())
            return number
        except _REPEATED:
            continue
    raise InVainError(statement)


def _concurrently(cluster: Cluster, writers: str) -> tuple[str, ...]:
    with _load(cluster, writers) as load:
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
