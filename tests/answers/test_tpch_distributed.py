"""TPC-H with its foreign keys, taken in by `shardman distribute`: its answers are those of a plain server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import conninfo
from tests.cli.conftest import run

import shardman
from answers.twin import ask, difference
from shardman.pg.connection import SyncConnection
from shardman.testing.cluster import Cluster

SQL = Path(__file__).parent / "tpch"
QUERIES = sorted(each.stem for each in SQL.glob("q*.sql"))
TABLES = ("region", "nation", "supplier", "customer", "part", "partsupp", "orders", "lineitem")
SCALE = "0.01"

pytestmark = pytest.mark.slow


def fill(session: SyncConnection, rows: Path) -> None:
    session.execute((SQL / "schema.sql").read_text().encode())
    for table in TABLES:
        with session.cursor().copy(
            f"copy {table} from stdin (format csv, header)".encode()
        ) as copy:
            copy.write((rows / f"{table}.csv").read_bytes())
    session.execute((SQL / "foreign_keys.sql").read_text().encode())


@pytest.fixture(scope="module")
def plain(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncConnection]:
    """A plain server with the rows of the cluster; there orders and lineitem are sharded, the rest shared."""
    rows = tmp_path_factory.mktemp("tpch")
    program = Path(sys.executable).parent / "tpchgen-cli"
    subprocess.run([program, "csv", "-s", SCALE, "--output-dir", rows, "--quiet"], check=True)
    cluster.sql(0, "create database plain")
    with psycopg.connect(
        conninfo.make_conninfo(cluster.dsn(0), dbname="plain"), autocommit=True
    ) as one:
        fill(one, rows)
        with cluster.connect(1) as first:
            fill(first, rows)
        wish = ("--shard", "orders=o_orderkey", "--shard", "lineitem=l_orderkey")
        done = run("distribute", *wish, "--partitions", "6", "--apply", "--yes", dsn=cluster.dsn(1))
        assert done.code == 0, done
        one.execute("analyze")
        for node in cluster.worker_dsns:
            cluster.sql(node, "analyze")
        yield one


def test_its_tables_lie_as_they_were_wished(cluster: Cluster, plain: SyncConnection) -> None:
    shared = "select array_agg(relation order by relation) from shardman.shared_tables"
    assert cluster.value(2, shared) == sorted(set(TABLES) - {"orders", "lineitem"})
    assert cluster.value(2, "select count(distinct colocation) from shardman.tables") == 1
    for row in ("(1, 1, 1, 9)", "(-1, 1, 2, 1)"):
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            cluster.sql(
                3,
                "insert into lineitem values "  # type: ignore[arg-type]
                + row[:-1]
                + ", 1, 1, 0, 0, 'N', 'O', now(), now(), now(), '', '', '')",
            )


@pytest.mark.parametrize("query", QUERIES)
def test_the_answer_is_that_of_a_plain_server(
    cluster: Cluster, plain: SyncConnection, query: str
) -> None:
    text = (SQL / f"{query}.sql").read_text()
    expected = ask(plain, text)
    assert expected.error is None, expected.message
    dsn = cluster.dsn(1 + int(query[1:]) % 3)
    with (
        psycopg.connect(dsn, autocommit=True) as node,
        shardman.connect(dsn, autocommit=True) as client,
    ):
        for session in (node, client):
            got = ask(session, text)  # type: ignore[arg-type]
            assert got.matches(expected, ordered=False), difference(query, None, expected, got)
