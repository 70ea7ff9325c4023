"""Programs that drop their tables and make them again, unmodified: every node is the whole database then."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
import psycopg
import pytest
import sqlalchemy as sa
from psycopg import conninfo
from tests.cli.conftest import run

from shardman.local.programs import find_programs
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

WORKERS = (1, 2, 3)
TABLES = ("accounts", "branches", "tellers", "history")
LAYOUT = "select relation, expr, partitions_count, replevel from shardman.tables order by 1"


def settled(cluster: Cluster) -> None:
    eventually("all commands have ended", lambda: not cluster.commands_left(), seconds=120)
    assert check(cluster.lord_dsn, data=True, patience=30) == []


@contextmanager
def reading(cluster: Cluster, node: int, query: str) -> Iterator[list[object]]:
    """Reads all the time through a node. A table may not be there for a while: other errors are collected."""
    stop, strange = threading.Event(), list[object]()

    def read() -> None:
        with cluster.connect(node) as conn:
            while not stop.is_set():
                try:
                    conn.execute(query.encode())
                except psycopg.errors.UndefinedTable:
                    stop.wait(0.02)
                except psycopg.Error as error:
                    strange.append((error.sqlstate, str(error)))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield strange
    finally:
        stop.set()
        reader.join()


def pgbench(cluster: Cluster, node: int) -> None:
    program = str(find_programs().path("pgbench"))
    command = (program, "-i", "-q", "--foreign-keys", cluster.dsn(node))
    done = subprocess.run(
        command,
        env=os.environ | {"LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_pgbench_twice(cluster: Cluster) -> None:
    pgbench(cluster, 1)
    wish = ("--shard", "pgbench_accounts=aid", "--partitions", "4", "--apply", "--yes")
    assert run("distribute", *wish, dsn=cluster.dsn(1)).code == 0
    assert cluster.cmd("select shardman.set_replevel('pgbench_accounts', 1)").status == "done"
    layout = cluster.sql(0, LAYOUT)
    assert [row[0] for row in layout] == ["pgbench_accounts", "pgbench_history"]
    for node in (2, 1):
        with reading(cluster, 3, "select count(*) from pgbench_accounts") as strange:
            pgbench(cluster, node)
            settled(cluster)
        assert strange == []
        assert cluster.sql(0, LAYOUT) == layout
        for worker in WORKERS:
            counts = [
                cluster.value(worker, f"select count(*) from pgbench_{t}".encode()) for t in TABLES
            ]
            assert counts == [100_000, 1, 10, worker - 1]
            cluster.sql(
                worker, "insert into pgbench_history (tid, bid, aid) values (1, 1, %s)", (worker,)
            )
            with pytest.raises(psycopg.errors.ForeignKeyViolation):
                cluster.sql(
                    worker, "insert into pgbench_history (tid, bid, aid) values (1, 1, 999999)"
                )
        shared = cluster.sql(0, "select relation from shardman.shared_tables order by 1")
        assert shared == [("pgbench_branches",), ("pgbench_tellers",)]


def engine(cluster: Cluster, node: int) -> sa.Engine:
    where = conninfo.conninfo_to_dict(cluster.dsn(node))
    url = sa.URL.create(
        "postgresql+psycopg",
        *(str(where[k]) for k in ("user", "password", "host")),
        int(str(where["port"])),
        str(where["dbname"]),
    )
    return sa.create_engine(url)


def test_pandas_replaces(cluster: Cluster) -> None:
    def frame(first: int) -> pd.DataFrame:
        return pd.DataFrame({"id": range(first, first + 50), "name": [f"x{i}" for i in range(50)]})

    frame(0).to_sql("frame", engine(cluster, 1), index=False)
    assert (
        cluster.cmd("select shardman.create_hash_partitions(1, 'frame', 'id', 3)").status
        == "success"
    )
    for node in (2, 3):
        with reading(cluster, 1, "select count(*) from frame") as strange:
            frame(node).to_sql("frame", engine(cluster, node), if_exists="replace", index=False)
            settled(cluster)
        assert strange == []
        for worker in WORKERS:
            read = pd.read_sql("select * from frame order by id", engine(cluster, worker))
            assert read.equals(frame(node))
        assert ("frame", "id", 3) in [row[:3] for row in cluster.sql(0, LAYOUT)]
