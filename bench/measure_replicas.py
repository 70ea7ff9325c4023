"""What replicas cost who writes, beside PostgreSQL's own physical synchronous replication."""

from __future__ import annotations

import re
import subprocess
import tempfile
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from shardman.local import find_programs
from shardman.testing.cluster import Cluster

ROWS = 100_000
CLIENTS = 8
FILL = "insert into {} select i, 0, repeat('x', 60) from generate_series(1, %s) i"
SCRIPT = "\\set id random(1, {rows})\nupdate {table} set n = n + 1 where id = :id;\n"


@dataclass(frozen=True)
class Speed:
    """What pgbench saw: transactions a second, and their latency in milliseconds."""

    tps: float
    ms: float


def replicas(quick: bool) -> Table:
    """Each row is measured right after the same load on a plain server; fsync is off on all."""
    seconds = 3 if quick else 15
    table = Table(title=f"single-row updates, {CLIENTS} clients at the owner")
    for column in ("replicas", "partitions", "writes/s", "ms", "plain writes/s", "ratio"):
        table.add_column(column, justify="right")
    with ExitStack() as stack:
        plain = stack.enter_context(closing(_plain()))

        def row(what: str, partitions: int, dsn: str, name: str) -> None:
            alone = _pgbench(plain.dsn(1), "p", seconds)
            found = _pgbench(dsn, name, seconds)
            table.add_row(
                what,
                str(partitions or ""),
                f"{found.tps:,.0f}",
                f"{found.ms:.2f}",
                f"{alone.tps:,.0f}",
                f"{found.tps / alone.tps:.2f}",
            )

        standby = stack.enter_context(closing(_plain()))
        _stand_by(standby)
        row("one physical standby, synchronous", 0, standby.dsn(1), "p")
        cluster = stack.enter_context(closing(_cluster((1, 12, 100))))
        for partitions in (12,) if quick else (1, 12, 100):
            name = f"t{partitions}"
            for level, sync in ((0, True), (1, True), (1, False), (2, False), (2, True)):
                _set(cluster, name, level, sync=sync)
                words = f"{level}, {'synchronous' if sync else 'asynchronous'}" if level else "0"
                row(words, partitions, cluster.dsn(1), name)
            _set(cluster, name, 0, sync=True)
    return table


def _plain() -> Cluster:
    """Two servers; the first one has the table p."""
    servers = Cluster(workers=1, bare=True)
    servers.sql(1, b"create table p (id int primary key, n int not null, filler text not null)")
    servers.sql(1, FILL.format("p").encode(), (ROWS,))
    return servers


def _stand_by(servers: Cluster) -> None:
    """Gives the first server a synchronous physical standby."""
    first = servers.local.server(1)
    copy = servers.local.add_servers(1)[0]
    copy.data.parent.mkdir(parents=True, exist_ok=True)
    copy.account.give(copy.data.parent)
    subprocess.run(
        [
            first.programs.path("pg_basebackup"),
            "-D",
            copy.data,
            "-d",
            first.dsn,
            "-R",
            "-c",
            "fast",
        ],
        check=True,
        cwd="/",
        **copy.account.spawn_options(),
    )
    servers.local.start_servers()
    servers.sql(1, "alter system set synchronous_standby_names = '*'")
    servers.sql(1, "select pg_reload_conf()")


def _cluster(sizes: tuple[int, ...]) -> Cluster:
    """Three workers; tables of so many partitions, all on the first."""
    cluster = Cluster(workers=3)
    for partitions in sizes:
        name = f"t{partitions}"
        cluster.sql(
            1,
            f"create table {name} (id int primary key, n int not null, filler text not null)".encode(),
        )
        cluster.sql(1, FILL.format(name).encode(), (ROWS,))
        done = cluster.cmd(
            "select shardman.create_hash_partitions(1, %s, 'id', %s, false)",
            (name, partitions),
            seconds=600,
        )
        assert done.status == "success", done
    return cluster


def _set(cluster: Cluster, name: str, level: int, *, sync: bool) -> None:
    for query, value in (
        ("select shardman.set_replevel(%s, %s)", level),
        ("select shardman.set_sync(%s, %s)", sync),
    ):
        done = cluster.cmd(query.encode(), (name, value), seconds=600)
        assert done.status in ("success", "done"), done


def _pgbench(dsn: str, table: str, seconds: int) -> Speed:
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory, "update.sql")
        script.write_text(SCRIPT.format(rows=ROWS, table=table))
        argv = [find_programs().path("pgbench"), "-n", "-M", "prepared", "-f", script]
        argv += ["-c", str(CLIENTS), "-j", "2", "-T", str(seconds), dsn]
        done = subprocess.run(argv, check=True, capture_output=True, text=True)
    return Speed(
        _number(r"tps = ([0-9.]+)", done.stdout), _number(r"average = ([0-9.]+)", done.stdout)
    )


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found is not None, text
    return float(found[1])
