"""An application has a partition for itself: who only looks does not wait, and who has to wait says so."""

from __future__ import annotations

import html
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg
import pytest

from shardman.nodes import status
from shardman.nodes.status import NodeStatus, Status, Watch
from shardman.testing import eventually
from shardman.testing.cluster import Cluster
from shardman.testing.faults import freeze
from web.viewing import Viewer, served

PROGRAM = "nightly <report>"
WAITS_FOR = "select waits_for from shardman.commands where id = %s"


@contextmanager
def held(cluster: Cluster, statement: str) -> Iterator[int]:
    """Something is done to a partition of node 1 in a transaction that stays open; its process."""
    with psycopg.connect(cluster.dsn(1), application_name=PROGRAM) as app:
        app.execute("set shardman.ddl = 'here'")
        part = part_on_1(cluster)
        app.execute(statement.format(part, index=index_of(cluster, part)).encode())
        yield app.info.backend_pid
        app.rollback()


def part_on_1(cluster: Cluster) -> str:
    query = """
        select min(part_name) from shardman.partitions where relation = 'acc' and owner = 1 and prv is null
    """
    return str(cluster.value(0, query))


def index_of(cluster: Cluster, part: str) -> str:
    query = """
        select indexrelid::regclass::text from pg_index where indrelid = to_regclass(shardman.data_table(%s))
    """
    return str(cluster.value(1, query, (part,)))


def node_1(now: Status) -> NodeStatus:
    return next(n for n in now.nodes if n.id == 1)


@pytest.mark.parametrize(
    "statement",
    [
        "lock table {0} in access exclusive mode",
        "alter table {0} alter n set default 7",
        "reindex index {index}",
        "truncate {0}",
        "lock table acc in access exclusive mode",
        "alter table acc alter n set default 7",
    ],
)
@pytest.mark.usefixtures("page")
def test_the_status_does_not_wait_for_it(cluster: Cluster, statement: str) -> None:
    """What it has for itself has no size meanwhile, and the node is up."""
    part = part_on_1(cluster)
    with held(cluster, statement), closing(Watch(cluster.lord_dsn)) as watch:
        for now in (status.read(cluster.lord_dsn), watch.read()[0], watch.read()[0]):
            assert node_1(now).why is None
            (row,) = (p for p in now.partitions if p["part_name"] == part)
            assert row["bytes"] is None
        if " acc " in statement:
            told = [f.subject for f in status.read(cluster.lord_dsn).problems]
            assert "tables on node 1" in told
        query = "select part_name from shardman.status_partitions where bytes is null and here = 'primary'"
        assert (part,) in cluster.sql(1, query)
    now = status.read(cluster.lord_dsn)
    assert all(p["bytes"] is not None for p in now.partitions)


def test_a_move_says_whom_it_waits_for(cluster: Cluster, viewer: Viewer) -> None:
    viewer.log_in("actor")
    with held(cluster, "lock table {0} in access exclusive mode") as pid:
        number = cluster.submit("select shardman.move_part(%s, 3)", (part_on_1(cluster),))
        whom = f"pid {pid} (postgres, {PROGRAM}"
        for path in ("/", "/commands", f"/commands/{number}"):
            eventually(
                f"{path} says whom it waits for",
                lambda path=path: html.unescape(viewer.get(path).text),
                until=lambda text: whom in text and "on node 1" in text,
                seconds=60,
            )
        begun = time.monotonic()
        text = html.unescape(viewer.get("/nodes/1").text)
        assert time.monotonic() - begun < 5
        assert "up" in text
        # The one who is waited for comes first, with the time since when.
        sessions = text.partition("<h2>Sessions</h2>")[2]
        first = sessions.partition("<tbody>")[2].partition("</tr>")[0]
        assert str(pid) in first
    done = cluster.wait(number)
    assert done.status == "success", done


def test_a_replica_says_whom_it_waits_for(cluster: Cluster) -> None:
    """Its channel has to know the table."""
    part = part_on_1(cluster)
    replica = cluster.value(
        0, "select owner from shardman.partitions where part_name = %s and prv is not null", (part,)
    )
    assert cluster.cmd("select shardman.set_replevel('acc', 0)").status == "done"
    with held(cluster, "lock table {0} in access exclusive mode") as pid:
        number = cluster.submit("select shardman.create_replica(%s, %s)", (part, replica))
        eventually(
            "it says whom it waits for",
            lambda: cluster.value(0, WAITS_FOR, (number,)),
            until=lambda text: f"pid {pid}" in (text or ""),
            seconds=60,
        )
    assert cluster.wait(number).status == "success"
    assert cluster.cmd("select shardman.set_replevel('acc', 1)").status == "done"


@pytest.mark.usefixtures("page")
def test_the_page_stops_while_a_node_hangs(cluster: Cluster) -> None:
    """Also when somebody looks just then, and asks that node."""
    go_on = None
    try:
        with served(cluster) as base:
            viewer = Viewer(base)
            viewer.log_in("looker")
            viewer.get("/")
            go_on = freeze(cluster, 3)
            time.sleep(2)  # A look is under way.
            begun = time.monotonic()
        assert time.monotonic() - begun < 15
    finally:
        if go_on is not None:
            go_on()


def test_what_has_failed_is_on_the_first_page(cluster: Cluster, viewer: Viewer) -> None:
    viewer.log_in("looker")
    failed = cluster.cmd("select shardman.move_part('acc_1', 77)")
    assert failed.status == "failed"
    eventually(
        "it is there",
        lambda: html.unescape(viewer.get("/").text),
        until=lambda text: "Failed in the last hour" in text and "77" in text,
        seconds=30,
    )


def test_rows_that_nobody_reaches_are_said(cluster: Cluster) -> None:
    """The worst that a dead node means is not left to be reckoned out."""
    cluster.sql(1, "create table bare (id int primary key)")
    made = cluster.cmd("select shardman.create_hash_partitions(1, 'bare', 'id', 3)")
    assert made.status == "success"
    cluster.sql(0, "insert into shardman.settings values ('failover_after', '1000')")
    query = "select part_name from shardman.partitions where relation = 'bare' and owner = 2"
    on_2 = cluster.sql(0, query)
    assert on_2
    cluster.stop_node(2)
    try:
        found = {f.subject: f for f in status.read(cluster.lord_dsn).problems}
        assert all(name in found["rows on node 2"].what for (name,) in on_2)
        assert "acc" not in found["rows on node 2"].what
    finally:
        cluster.start_node(2)
        cluster.sql(0, "delete from shardman.settings where name = 'failover_after'")
    eventually(
        "all is well",
        lambda: [f.subject for f in status.read(cluster.lord_dsn).problems],
        until=lambda found: "rows on node 2" not in found,
    )
