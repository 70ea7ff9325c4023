"""The 22 queries of TPC-H at scale factor 0.03 (0.1 with SHARDMAN_LONG), through every node, against one plain
server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from answers.twin import Twin
from shardman.pg.connection import SyncConnection
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

HERE = Path(__file__).parent / "tpch"
SCALE = "0.1" if os.environ.get("SHARDMAN_LONG") else "0.03"
LIMIT = "60s"
PARTITIONS = {
    "region": ("r_regionkey", 1),
    "nation": ("n_nationkey", 1),
    "supplier": ("s_suppkey", 6),
    "customer": ("c_custkey", 6),
    "part": ("p_partkey", 6),
    "partsupp": ("ps_partkey", 6),
    "orders": ("o_orderkey", 6),
    "lineitem": ("l_orderkey", 6),
}
# Its sub-select refers to the outer row. Only a remote estimate lets postgres_fdw send the values
# along instead of fetching the table for every row.
CORRELATED = "q20"
QUERIES = [each.stem for each in sorted(HERE.glob("q*.sql"))]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables as files: table.csv, each with a line of names."""
    directory = tmp_path_factory.mktemp("tpch")
    program = Path(sys.executable).parent / "tpchgen-cli"
    subprocess.run([program, "csv", "-s", SCALE, "--output-dir", directory, "--quiet"], check=True)
    return directory


@pytest.fixture(scope="module")
def twin(cluster: Cluster, data: Path) -> Iterator[Twin]:
    """The tables with all rows, on both sides."""

    def fill(session: SyncConnection) -> None:
        for table in PARTITIONS:
            # Table names are this module's own.
            with (
                session.cursor().copy(f"copy {table} from stdin (format csv, header)") as copy,
                (data / f"{table}.csv").open("rb") as rows,
            ):
                while block := rows.read(1 << 20):
                    copy.write(block)

    made = Twin(cluster, (HERE / "schema.sql").read_text(), PARTITIONS, fill)
    for session in (made.plain, *made.nodes.values()):
        session.execute("set work_mem = '64MB'")
        session.execute(f"set statement_timeout = '{LIMIT}'")
    yield made
    made.close()


@pytest.fixture
def remote_estimates(cluster: Cluster) -> Iterator[None]:
    """As docs/operations.md has it, until the test is over."""
    _set_remote_estimates(cluster, "true")
    yield
    _set_remote_estimates(cluster, "false")


def _set_remote_estimates(cluster: Cluster, value: str) -> None:
    cluster.sql(
        0,
        "insert into shardman.settings values ('use_remote_estimate', %s)"
        " on conflict (name) do update set value = excluded.value",
        (value,),
    )
    for node in (0, *cluster.worker_dsns):
        _until_servers_have(cluster, node, f"use_remote_estimate={value}")


def _until_servers_have(cluster: Cluster, node: int, option: str) -> None:
    query = (
        "select bool_and(%s = any (srvoptions)) is not false from pg_foreign_server"
        " where srvname ~ '^shardman_node'"
    )
    eventually(
        f"the servers of node {node} have {option}",
        lambda: cluster.value(node, query, (option,)),
        seconds=30,
    )


@pytest.mark.parametrize("query", [q for q in QUERIES if q != CORRELATED])
def test_the_answer_is_that_of_a_plain_server(twin: Twin, query: str) -> None:
    node = int(query[1:]) % len(twin.nodes)
    answer = twin.same(node, (HERE / f"{query}.sql").read_text())
    assert answer.error is None, answer.message


def test_a_correlated_query_with_remote_estimates(twin: Twin, remote_estimates: None) -> None:
    answer = twin.same(1, (HERE / f"{CORRELATED}.sql").read_text())
    assert answer.error is None, answer.message
