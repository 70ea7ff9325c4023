"""What a cluster of real servers is seen to do, also while one of them hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from shardman.cli.main import main
from shardman.local import ports
from shardman.metrics import node as asking
from shardman.metrics.catalog import METRICS
from shardman.testing.cluster import Cluster
from shardman.testing.faults import freeze
from shardman.testing.plugin import ClusterFactory
from shardman.testing.waiting import eventually

Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]

#: What a cluster at rest has nothing to say of.
ONLY_AT_TIMES = {
    "shardman_commands",
    "shardman_failover_last_timestamp_seconds",
    "shardman_partition_bytes",
    "shardman_partition_rows",
}
TABLE = 'odd."Tab ""x\\ü"'


@pytest.fixture(scope="module")
def cluster(module_cluster_factory: ClusterFactory) -> Cluster:
    return module_cluster_factory(workers=2)


@pytest.fixture(scope="module", autouse=True)
def table(cluster: Cluster) -> None:
    cluster.sql(0, "insert into shardman.settings values ('failover_after', '600')")
    cluster.sql(1, "create schema odd")
    cluster.sql(1, f"create table {TABLE} (id int primary key, v int)")
    for query in (
        "select shardman.set_zone(1, 'a')",
        f"select shardman.create_hash_partitions(1, '{TABLE}', 'id', 4)",
        f"select shardman.set_replevel('{TABLE}', 1)",
    ):
        assert cluster.cmd(query.encode()).status in ("success", "done")  # type: ignore[arg-type]
    cluster.sql(2, f"insert into {TABLE} select g, 0 from generate_series(1, 500) g".encode())  # type: ignore[arg-type]


def read(text: str) -> Values:
    """By name and labels; the parser is strict."""
    families = list(text_string_to_metric_families(text))
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def once(dsn: str, capsys: Any, *options: str) -> Values:
    with pytest.raises(SystemExit) as ended:
        main(["metrics", "--dsn", dsn, *options])
    assert not ended.value.code
    return read(capsys.readouterr().out)


def value(values: Values, name: str, **labels: str) -> float:
    return values[f"shardman_{name}", tuple(sorted(labels.items()))]


@contextmanager
def served(*arguments: str) -> Iterator[str]:
    """A process that serves metrics; its URL."""
    port = ports.choose()
    where = f"127.0.0.1:{port}"
    words = [word.replace("WHERE", where) for word in arguments]
    process = subprocess.Popen(
        [sys.executable, "-m", "shardman", *words], stderr=subprocess.PIPE, env=dict(os.environ)
    )
    try:
        url = f"http://{where}/metrics"
        eventually("it serves", lambda: urllib.request.urlopen(url).status, tolerate=OSError)
        yield url
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.communicate()


def scrape(url: str) -> Values:
    asked = urllib.request.Request(url, headers={"Accept": "application/openmetrics-text"})
    with urllib.request.urlopen(asked, timeout=20) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        return read(answer.read().decode())


def test_everything_has_a_value(cluster: Cluster, capsys: Any) -> None:
    values = once(cluster.dsn(2), capsys)
    names = {metric.sample for metric in METRICS.values()}
    assert {name for name, _ in values} <= names
    left_out = names - {name for name, _ in values}
    assert {n.removesuffix("_total") for n in left_out} <= ONLY_AT_TIMES
    written = sum(
        v
        for (name, labels), v in values.items()
        if name == "shardman_table_rows_total" and ("operation", "inserted") in labels
    )
    assert written >= 500
    assert value(values, "table_partitions", table=TABLE) == 4
    assert value(values, "node_zone_info", node="1", zone="a") == 1
    assert value(values, "shardlord_acting") == 1
    assert sum(value(values, "node_copies", node=str(n), copy="replica") for n in (1, 2)) == 4
    assert all(value(values, "node_up", node=str(n)) == 1 for n in range(3))
    assert abs(value(values, "clock_offset_seconds", node="1")) < 5


def test_partitions_where_asked(cluster: Cluster, capsys: Any) -> None:
    values = once(cluster.dsn(0), capsys, "--partitions")
    sizes = [labels for name, labels in values if name == "shardman_partition_bytes"]
    assert len(sizes) == 8


def test_who_looks_may_have_few_rights(cluster: Cluster, capsys: Any) -> None:
    everything = once(cluster.dsn(0), capsys)
    for node in range(3):
        cluster.sql(node, "create role looker login password 'lookpw' in role shardman_viewer")
        cluster.sql(node, "create role nobody_here login password 'nopw'")
    looker = make_conninfo(cluster.dsn(0), user="looker", password="lookpw")
    assert {name for name, _ in once(looker, capsys)} == {name for name, _ in everything}
    nobody = make_conninfo(cluster.dsn(0), user="nobody_here", password="nopw")
    with pytest.raises(SystemExit) as ended:
        main(["metrics", "--dsn", nobody])
    assert ended.value.code == 1
    assert "member of shardman_viewer" in capsys.readouterr().err


def test_a_node_that_hangs_keeps_nobody(cluster: Cluster) -> None:
    with served("metrics", "--dsn", cluster.dsn(2), "--listen", "WHERE") as url:
        before = eventually(
            "the slow values are there",
            lambda: scrape(url),
            until=lambda v: ("shardman_node_database_bytes", (("node", "2"),)) in v,
        )
        go_on = freeze(cluster, 2)
        try:
            time.sleep(1.1)  # What was asked a moment ago is not asked again.
            began = time.monotonic()
            after = scrape(url)
            assert time.monotonic() - began < 6
            assert value(after, "node_up", node="2") == 0
            assert value(after, "node_age_seconds", node="2") > 1
            # The last known value stays; the others go on.
            labels = {"node": "2", "outcome": "committed"}
            kept = value(before, "node_transactions_total", **labels)
            assert value(after, "node_transactions_total", **labels) >= kept
            for node in ("0", "1"):
                assert value(after, "node_up", node=node) == 1
                assert value(after, "node_age_seconds", node=node) < 6
        finally:
            go_on()
        eventually(
            "node 2 is up again",
            lambda: value(scrape(url), "node_up", node="2"),
            until=lambda up: up == 1,
            seconds=30,
        )


def test_who_is_not_heard_of_is_not_up_whatever_waits(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each wait has a limit of its own, and all of them together one: here that comes first."""
    monkeypatch.setattr(asking, "OVERDUE_S", 0.5)

    async def look() -> None:
        asker = asking.NodeAsker(2, {"partitions": False, "tables": 100}, 1e9)
        asker.params = conninfo_to_dict(cluster.dsn(2))
        await asker.ask(20, slowly=True)
        assert asker.answers.up
        go_on = freeze(cluster, 2)
        try:
            await asker.ask(0.1, slowly=False)
            assert asker.answers.up
            await asyncio.sleep(0.5)
            await asker.ask(0.1, slowly=False)
            assert not asker.answers.up
        finally:
            go_on()
        # The next question does not wait behind that one.
        await asker.ask(20, slowly=False)
        assert asker.answers.up
        await asker.leave()

    asyncio.run(look())


def test_a_shardlord_that_stands_by_serves_them(cluster: Cluster) -> None:
    stands_by = (
        "select exists (select from pg_stat_activity where application_name = 'shardman standby')"
    )
    with served("lord", cluster.lord_dsn, "--metrics", "WHERE") as url:
        assert value(scrape(url), "shardlord_acting") == 1
        eventually("it stands by", lambda: cluster.value(0, stands_by), until=bool)


def test_an_address_that_is_taken(cluster: Cluster, capsys: Any) -> None:
    port = cluster.dsn(0).split("port=")[1].split()[0]
    with pytest.raises(SystemExit) as ended:
        main(["metrics", "--dsn", cluster.dsn(0), "--listen", f"127.0.0.1:{port}"])
    assert ended.value.code == 1
    assert "cannot listen on" in capsys.readouterr().err
    # Else nothing that this process starts could be stopped by SIGTERM any more.
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_without_the_library(cluster: Cluster) -> None:
    hidden = (
        "import sys; sys.modules['prometheus_client'] = None;"
        " from shardman.cli.main import main; main()"
    )
    said = subprocess.run(
        [sys.executable, "-c", hidden, "metrics", "--dsn", cluster.dsn(0)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path("/"),
    )
    assert said.returncode == 1
    assert "pip install 'pg-shardman[metrics]'" in said.stderr
