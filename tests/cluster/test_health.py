"""Health in one place: what the views and the program say of replicas, links, failovers and of what
was left behind."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import psycopg
import pytest

from shardman.cli.main import main
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

SIZE = 200


@pytest.fixture(scope="module")
def ready(cluster: Cluster) -> Cluster:
    """A table of four partitions with a replica each."""
    cluster.sql(1, "create table acc (id int primary key, v int not null default 0)")
    cluster.sql(1, "insert into acc select g from generate_series(1, %s) g", (SIZE,))
    for command in (
        "select shardman.create_hash_partitions(1, 'acc', 'id', 4)",
        "select shardman.set_replevel('acc', 1)",
    ):
        done = cluster.cmd(command)  # type: ignore[arg-type]
        assert done.status in ("success", "done"), done
    return cluster


@contextmanager
def shardlord_held(cluster: Cluster) -> Iterator[None]:
    """What is done here the shardlord sees only afterwards: it would mend it before a test looks."""
    pid = cluster.lord_pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


Say = Callable[..., tuple[object, str]]


@pytest.fixture
def say(ready: Cluster, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs the program; its exit code and what it printed."""

    def run(*arguments: str, node: int = 0) -> tuple[object, str]:
        code: object = 0
        try:
            main([*arguments, "--dsn", ready.dsn(node)])
        except SystemExit as end:
            code = end.code
        return code, capsys.readouterr().out

    return run


@pytest.fixture
def status(say: Say) -> Callable[[], Any]:
    """The document that `shardman status` prints."""
    return lambda: json.loads(say("status", "--json")[1])


def problems(ready: Cluster, node: int) -> dict[str, str]:
    return dict(ready.sql(node, "select subject, problem from shardman.status_problems"))


def test_copies_are_listed_in_the_order_of_succession(ready: Cluster) -> None:
    pairs = ready.sql(
        0,
        "select part_name, p.owner, r.owner from shardman.partitions p join shardman.partitions r"
        " using (part_name) where p.prv is null and r.prv is not null order by 1",
    )
    # One where the order is not that of the nodes' ids.
    part, primary, first, last = next(
        (part, p, r, 6 - p - r) for part, p, r in pairs if r > 6 - p - r
    )
    assert ready.cmd("select shardman.create_replica(%s, %s)", (part, last)).status == "success"
    lists = "select replicas_on from shardman.status_partitions where part_name = %s"
    for node in (0, 1, 2, 3):
        eventually(
            f"node {node} knows the order of the copies",
            lambda node=node: ready.value(node, lists, (part,)),
            until=lambda seen: seen == [first, last],
        )
    copies = (
        "select place, node, role, synchronous from shardman.status_copies"
        " where part_name = %s order by 1"
    )
    assert ready.sql(0, copies, (part,)) == [
        (0, primary, "primary", False),
        (1, first, "replica", True),
        (2, last, "replica", True),
    ]
    assert ready.cmd("select shardman.rm_replica(%s, %s)", (part, last)).status == "success"


def test_links_say_what_the_server_really_does(ready: Cluster, status: Callable[[], Any]) -> None:
    links = (
        "select to_node, partitions, synchronous, waited_for, sync_state, streaming, lag_bytes, lag"
        " from shardman.status_channels"
    )
    src, dest = ready.sql(
        0,
        "select p.owner, r.owner from shardman.partitions p join shardman.partitions r using (part_name)"
        " where p.prv is null and r.prv is not null limit 1",
    )[0]
    found = {row[0]: row[1:] for row in ready.sql(src, links)}  # type: ignore[arg-type]
    assert found[dest][1:5] == (True, True, "sync", True)
    assert found[dest][5] is not None and found[dest][6] is not None
    total = sum(
        ready.value(n, "select coalesce(sum(partitions), 0) from shardman.status_channels")
        for n in (1, 2, 3)
    )
    assert total == 4
    eventually("the cluster is healthy", status, until=lambda seen: seen["healthy"])
    waited_for = "select waited_for from shardman.status_channels where to_node = %s"
    with shardlord_held(ready):
        ready.sql(src, "alter system set synchronous_standby_names = ''")
        ready.sql(src, "select pg_reload_conf()")
        eventually(
            "nobody is waited for",
            lambda: ready.value(src, waited_for, (dest,)),
            until=lambda seen: seen is False,
        )
    # Whoever took it away, the shardlord puts it back.
    eventually("the replica is waited for", lambda: ready.value(src, waited_for, (dest,)))
    shown = "show synchronous_standby_names"
    right = ready.value(src, shown)
    channel = ready.value(
        src, "select slot_name from shardman.status_channels where to_node = %s", (dest,)
    )
    # A name that nobody answers to would hold every commit; a number too low would let some go.
    stray = f"{channel[: -len(str(dest))]}99"
    for wrong in (f'FIRST 2 ("{channel}", "{stray}")', f'ANY 1 ("{channel}", "{stray}")'):
        with shardlord_held(ready):
            ready.sql(src, f"alter system set synchronous_standby_names = '{wrong}'".encode())
            ready.sql(src, "select pg_reload_conf()")
            eventually(
                "the wrong setting is read",
                lambda: ready.value(src, shown),
                until=lambda seen, wrong=wrong: seen == wrong,
            )
        eventually(
            "the right setting is back",
            lambda: ready.value(src, shown),
            until=lambda seen: seen == right,
        )
    assert ready.cmd("select shardman.suspend_replicas(%s, %s)", (src, dest)).status == "success"
    eventually("the cluster is healthy", status, until=lambda seen: seen["healthy"])
    assert "submitted by" in status()["failovers"][0]["reason"]


def test_a_failover_is_told_with_its_reason(
    ready: Cluster, status: Callable[[], Any], say: Say
) -> None:
    assert status()["failovers"] == [] or status()["failovers"][0]["cmd_type"] != "failover"
    ready.kill_node(2)
    rows = eventually(
        "a failover succeeds",
        lambda: ready.sql(
            0,
            "select node, reason, duration > interval '0', result from shardman.status_failovers"
            " where cmd_type = 'failover' and status in ('success', 'done')",
        ),
    )
    ((node, reason, took, result),) = rows
    assert (node, took) == (2, True)
    assert "silent for" in reason and "1, 3" in reason
    assert "Replicas take over" in result
    told = status()
    assert not told["healthy"]
    assert told["tables"][0]["replevel"] == 1
    assert told["tables"][0]["min_replicas"] == 0
    assert told["tables"][0]["below_level"] > 0
    assert told["tables"][0]["stale_replicas"] > 0
    what = {p["subject"]: p["what"] for p in told["problems"]}
    assert "fewer than 1 replicas" in what["acc"]
    assert "do not follow" in what["replicas on node 2"]
    code, said = say("status", "--partitions", node=1)
    assert code == 3
    assert "2 (stale)" in said and "silent for" in said


def test_tables_set_aside_are_reported(ready: Cluster, status: Callable[[], Any], say: Say) -> None:
    ready.start_node(2)
    aside = eventually(
        "tables are set aside",
        lambda: ready.sql(
            2, "select table_name, part_name, bytes, rows, since from shardman.set_aside"
        ),
    )
    assert all(name.startswith(part + "_aside_c") and size > 0 for name, part, size, _, _ in aside)
    eventually(
        "nothing is left to be set aside",
        lambda: ready.value(0, "select count(*) = 0 from shardman.returns_of(2)"),
    )
    told = status()
    assert [a["part_name"] for n in told["nodes"] if n["id"] == 2 for a in n["aside"]]
    # They may stay for as long as one likes: nothing is wrong with that.
    assert not any("set aside" in p["subject"] + p["what"] for p in told["problems"])
    assert "shardman clean" in say("status")[1]


def test_clean_drops_what_was_set_aside(
    ready: Cluster, status: Callable[[], Any], say: Say
) -> None:
    count = "select count(*) from shardman.set_aside"
    aside = ready.sql(2, "select table_name, cmd_id, part_name from shardman.set_aside order by 1")
    (name, cmd_id, part), *_ = aside
    strange = f"stranger_aside_c{cmd_id}"
    ready.sql(2, f"create table {strange} (id int)")  # type: ignore[arg-type]
    assert say("clean")[0] == 2  # nobody to ask
    code, said = say("clean", "--dry-run", node=1)
    assert (code, name in said, f"{strange} on node 2 is kept" in said) == (1, True, True)
    assert say("clean", "--dry-run", "--node", "3")[0] == 0
    assert say("clean", "--node", "77")[0] == 1
    assert ready.value(2, count) == len(aside) + 1

    # Without its primary nobody can say that it is not the last copy.
    ready.sql(0, "insert into shardman.settings values ('failover_after', '1000')")
    primary = ready.value(
        0, "select owner from shardman.partitions where part_name = %s and prv is null", (part,)
    )
    ready.stop_node(primary)
    try:
        told = json.loads(say("clean", "--dry-run", "--json")[1])
        kept = {t["table_name"]: t["kept"] for t in told["tables"]}
        assert "may be the last copy" in kept[name]
        assert [n["node"] for n in told["unreachable"]] == [primary]
    finally:
        ready.start_node(primary)
    ready.sql(0, "delete from shardman.settings where name = 'failover_after'")

    ready.sql(2, f"create table child () inherits ({name})")  # type: ignore[arg-type]
    with pytest.raises(psycopg.errors.ObjectInUse):
        ready.sql(2, "select shardman.drop_set_aside('public', %s)", (name,))
    ready.sql(2, "drop table child")
    with pytest.raises(psycopg.errors.UndefinedTable):
        ready.sql(2, "select shardman.drop_set_aside('public', 'acc')")

    code, said = say("clean", "--yes")
    assert (code, f"Dropped {len(aside)} table" in said) == (1, True)
    assert ready.sql(2, "select table_name from shardman.set_aside") == [(strange,)]
    ready.sql(2, f"drop table {strange}")  # type: ignore[arg-type]
    code, said = say("clean")
    assert (code, "No tables are set aside" in said) == (0, True)
    assert ready.value(2, "select count(*) from acc") == SIZE
    # What the failover took is made again.
    assert ready.cmd("select shardman.set_replevel('acc', 1)").status == "done"
    eventually("the cluster is healthy", status, until=lambda seen: seen["healthy"])


def test_a_dead_node_does_not_fill_the_disk_of_a_living_one(ready: Cluster, say: Say) -> None:
    """Two of three are silent: nothing is failed over, but their slots keep only so much."""
    src = ready.value(
        0,
        "select p.owner from shardman.partitions p join shardman.partitions r using (part_name)"
        " where p.prv is null and r.prv is not null order by p.owner limit 1",
    )
    others = [n for n in (1, 2, 3) if n != src]
    ready.sql(
        0, "insert into shardman.settings values ('wal_keep_limit', '8MB'), ('failover_after', '3')"
    )
    eventually(
        "the limit is known to the node",
        lambda: ready.value(
            src, "select shardman.bytes_setting('wal_keep_limit', '10GB') = 8388608"
        ),
    )
    for node in others:
        ready.kill_node(node)
    data = ready.value(
        src,
        "select part_name || '_data' from shardman.status_partitions where here = 'primary' limit 1",
    )
    written: list[Any] = []
    writer = Thread(target=lambda: written.append(ready.sql(src, f"update {data} set v = v + 1")))
    writer.start()
    eventually(
        "one commit waits",
        lambda: ready.value(src, "select commits from shardman.status_waiting"),
        until=lambda commits: commits == 1,
    )
    said = eventually("the wait is reported", lambda: problems(ready, src).get("commits", ""))
    assert said.startswith("1 wait for replicas on node")
    ready.sql(
        src,
        "select pg_logical_emit_message(false, 'test', repeat('x', 1000000)) from generate_series(1, 20)",
    )
    assert any("more than wal_keep_limit" in said for said in problems(ready, src).values())
    given_up = (
        "select to_node, reason from shardman.status_failovers"
        " where cmd_type = 'suspend_replicas' and reason like '%of WAL were kept%' and status = 'success'"
    )
    links = "select to_node from shardman.status_channels where slot_name is not null"
    eventually("replicas are suspended for the WAL they keep", lambda: ready.sql(0, given_up))
    eventually("no slot is left", lambda: ready.sql(src, links), until=lambda slots: slots == [])
    # Who waited for the dead ones is told that it is done.
    writer.join(60)
    assert written
    stale = ready.sql(0, "select distinct node from shardman.status_copies where role = 'stale'")
    assert {r[0] for r in stale} <= set(others) and stale
    ready.sql(0, "delete from shardman.settings where name = 'wal_keep_limit'")
    ready.sql(0, "update shardman.settings set value = '10' where name = 'failover_after'")
    first, last = others
    ready.start_node(first)
    eventually(
        "no doubt is left", lambda: ready.value(0, "select suspicion is null from shardman.lease")
    )
    # Those who come back later have their time for it.
    time.sleep(1)
    ready.start_node(last)
    eventually("status finds nothing wrong", lambda: say("status"), until=lambda said: said[0] == 0)
    failed_over = "select node, reason from shardman.status_failovers where cmd_type = 'failover'"
    assert [row for row in ready.sql(0, failed_over) if row[0] != 2] == []
    ready.sql(0, "delete from shardman.settings where name = 'failover_after'")
