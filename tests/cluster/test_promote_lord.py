"""The lord's database is replaced: planned, and after its server was destroyed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import psycopg
import pytest

from crash.stops import armed, points, wait_until_stopped
from shardman.local import daemon
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.load import Bank, Load, make_bank
from shardman.testing.waiting import eventually

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def bank(cluster: Cluster) -> Bank:
    bank = make_bank(cluster, 100, partitions=3)
    for table in ("accounts", "marks"):
        assert cluster.cmd("select shardman.set_replevel(%s, 1)", (table,)).status == "done"
    return bank


def shardman(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "shardman", *args],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def start_lord(cluster: Cluster, node: int) -> None:
    """A shardlord for the database of a node; stopped with the cluster."""
    cluster.local.state.shardlord = daemon.start(
        cluster.dsn(node), cluster.local.directory / "log" / f"lord{node}.log"
    )


def through(cluster: Cluster, node: int, query: str, *params: object) -> tuple[str, str]:
    """Submits a command on a node and waits for it there."""
    with cluster.connect(node) as conn:
        (cmd_id,) = conn.execute(query.encode(), params).fetchone() or (None,)
        conn.execute("select shardman.cmd_wait(%s, '90 s')", (cmd_id,))
        row = conn.execute(
            "select status::text, concat(error, result) from shardman.cmd_log where id = %s",
            (cmd_id,),
        ).fetchone()
    assert row is not None
    return row


def owner(cluster: Cluster, node: int, part: str) -> int:
    return int(
        cluster.value(
            node,
            "select owner from shardman.partitions where part_name = %s and prv is null",
            (part,),
        )
    )


def free_node(cluster: Cluster, node: int, part: str, except_cmd: int) -> int:
    """A worker without a copy of the partition."""
    return int(
        cluster.value(
            node,
            "select min(id) from shardman.nodes n where worker_status = 'active' and id <> %s and not exists"
            " (select from shardman.partitions where owner = n.id and part_name = %s)",
            (except_cmd, part),
        )
    )


def follows(cluster: Cluster, lord: int, nodes: tuple[int, ...]) -> bool:
    """Whether commands of these databases reach the lord: they have its metadata, and follow it. A slot
    alone is active while it is being made, too."""
    term = "select shardman.setting('lord_term', '0')"
    newest = cluster.value(lord, term)
    return all(cluster.value(node, term) == newest for node in nodes) and bool(
        cluster.value(
            lord,
            "select count(*) = %s from pg_replication_slots where active"
            " and slot_name like 'shardman\\_meta\\_%%' and database = current_database()",
            (len(nodes),),
        )
    )


def test_a_decision_waits_for_a_worker(cluster: Cluster, bank: Bank) -> None:
    eventually(
        "one worker is waited for",
        lambda: cluster.value(0, "show synchronous_standby_names"),
        until=lambda names: "ANY 1" in names,
    )
    steps = "select count(*) from shardman.cmd_steps"
    eventually(
        "the worker has every step",
        lambda: (cluster.value(0, steps), cluster.value(1, steps)),
        until=lambda found: found[0] == found[1] > 0,
    )
    with cluster.connect(1) as worker:
        worker.execute("create role clerk")
        worker.execute("set role clerk")
        for secret in ("cmd_secrets", "node_secrets"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                worker.execute(f"select from shardman.{secret}".encode())
        worker.execute("reset role")
        worker.execute("drop role clerk")


def test_what_a_stranger_has_on_the_new_lord_is_told_before_anything_stops(
    cluster: Cluster, bank: Bank
) -> None:
    name = f"shardman_meta_{cluster.value(0, 'select cluster from shardman.local')}"
    acting = cluster.value(0, "select epoch from shardman.lease")
    database = cluster.value(2, "select current_database()")
    plant = (
        f"create role stranger; grant create on database {database} to stranger; set role stranger;"
    )
    traps = (
        (
            f"{plant} create publication {name}",
            f"a publication {name} of stranger",
            f"drop publication {name}; drop owned by stranger; drop role stranger",
        ),
        (
            f"select pg_create_physical_replication_slot('{name}_1')",
            f"a replication slot {name}_1 of another kind",
            f"select pg_drop_replication_slot('{name}_1')",
        ),
    )
    for trap, said, away in traps:
        with cluster.connect(2) as node:
            node.execute(trap.encode())
        refused = shardman("promote-lord", "2", "--dsn", cluster.dsn(3))
        with cluster.connect(2) as node:
            node.execute(away.encode())
        assert refused.returncode == 1
        assert said in refused.stderr
    assert cluster.value(0, "select epoch from shardman.lease") == acting


def test_planned_under_load(cluster: Cluster, bank: Bank) -> None:
    dsns = [cluster.dsn(1), cluster.dsn(3)]
    with Load(dsns, [bank.increment, bank.read_then_write], workers=4, marks="marks") as load:
        time.sleep(0.5)
        done = shardman("promote-lord", "2", "--dsn", cluster.dsn(3))
        assert done.returncode == 0, done.stderr
        assert "Node 2 is the lord now" in done.stdout
        # The old shardlord ends by itself.
        eventually("the old shardlord ends", lambda: cluster.lord_pid is None, seconds=30)
        start_lord(cluster, 2)
        eventually("the workers follow node 2", lambda: follows(cluster, 2, (1, 3)), seconds=90)
        dest = free_node(cluster, 2, "accounts_0", except_cmd=0)
        status, said = through(cluster, 3, "select shardman.move_part('accounts_0', %s)", dest)
        assert status == "success", said
    assert load.errors == []
    assert load.acknowledged > 0
    assert owner(cluster, 1, "accounts_0") == dest
    refused = shardman("lord", cluster.lord_dsn)
    assert refused.returncode == 1
    assert "was the lord's of cluster" in refused.stderr
    with pytest.raises(psycopg.Error, match="lord"):
        cluster.sql(0, "select shardman.set_zone(1, 'a')")
    # Again it has nothing to do.
    assert shardman("promote-lord", "2", "--dsn", cluster.dsn(1)).returncode == 0
    assert cluster.lord_pid is not None
    assert check(cluster.dsn(1), data=True) == []


def lose_metadata(cluster: Cluster, name: str) -> None:
    """Node 2 follows the lord no more, nor can it again."""
    cluster.sql(2, f"alter subscription {name} disable".encode())
    eventually(
        "the worker does not follow",
        lambda: (
            not cluster.value(
                0, "select active from pg_replication_slots where slot_name = %s", (name,)
            )
        ),
    )
    cluster.sql(0, "select pg_drop_replication_slot(%s)", (name,))


def test_one_that_fails_leaves_the_lord_the_lord() -> None:
    with closing(Cluster(workers=2)) as cluster:
        name = cluster.value(2, "select subname::text from pg_subscription")
        assert cluster.lord_pid is not None
        # It would bring the metadata there again.
        os.kill(cluster.lord_pid, signal.SIGSTOP)
        try:
            lose_metadata(cluster, name)
            refused = shardman("promote-lord", "2", "--dsn", cluster.dsn(1))
        finally:
            os.kill(cluster.lord_pid, signal.SIGCONT)
        assert refused.returncode == 1
        assert "node 2 does not follow the lord" in refused.stderr
        # Its shardlord was shut out, and stays; in its next leadership every node obeys it.
        assert cluster.lord_pid is not None
        status, said = through(cluster, 1, "select shardman.set_zone(1, 'a')")
        assert status == "success", said


def test_the_old_lord_becomes_a_worker(cluster: Cluster, bank: Bank) -> None:
    status, said = through(cluster, 1, "select shardman.add_node(%s)", cluster.lord_dsn)
    assert status == "success", said
    assert "part of a cluster before" in said
    assert cluster.value(0, "select node_id from shardman.local") == 4
    assert cluster.value(0, "select count(*) from accounts") == 100


def test_after_the_loss_of_its_server(cluster: Cluster, bank: Bank) -> None:
    def move(part: str) -> str:
        return f"select shardman.move_part('{part}', {free_node(cluster, 2, part, except_cmd=2)})"

    with cluster.connect(2) as lord:
        (first,) = lord.execute(move("marks_1").encode()).fetchone() or (0,)
        lord.execute("select shardman.cmd_wait(%s)", (first,))
        behind = [p for p in points(lord, first) if p.state == "started"][-2]
    with armed(cluster.dsn(2), "move_part", behind) as holder:
        query = move("marks_2")
        (second,) = holder.execute(query.encode()).fetchone() or (0,)
        wait_until_stopped(holder, second)
        # The journal's last commits are asynchronous: all have the same before it dies.
        (upto,) = holder.execute("select shardman.emit()").fetchone() or (None,)
        (same,) = holder.execute(
            "select bool_and(shardman.await_confirmed(slot_name, %s, 20000))"
            " from pg_replication_slots where slot_name like 'shardman\\_meta\\_%%' and active",
            (upto,),
        ).fetchone() or (None,)
        assert same
        dest = int(query.split(",")[1].strip(" )"))
        cluster.kill_node(2)
    refused = shardman("promote-lord", "3", "--dsn", cluster.dsn(1))
    assert refused.returncode == 1
    assert "cannot be reached" in refused.stderr
    done = shardman("promote-lord", "3", "--force", "--dsn", cluster.dsn(1))
    assert done.returncode == 0, done.stderr
    cluster.stop_lord(kill=True)
    start_lord(cluster, 3)
    eventually("the workers follow node 3", lambda: follows(cluster, 3, (1, 0)), seconds=90)
    row = "select status::text from shardman.cmd_log where id = %s"
    eventually(
        "the second command succeeds",
        lambda: cluster.value(3, row, (second,)),
        until=lambda status: status == "success",
        seconds=90,
    )
    assert owner(cluster, 1, "marks_2") == dest
    # What had its primary there is taken over, by the new lord's shardlord.
    eventually(
        "node 2 has no primary",
        lambda: (
            cluster.value(
                1, "select count(*) from shardman.partitions where owner = 2 and prv is null"
            )
            == 0
        ),
    )
    assert cluster.value(1, "select count(*) from accounts") == 100


def test_it_comes_back_and_is_refused(cluster: Cluster, bank: Bank) -> None:
    cluster.start_node(2)
    refused = shardman("lord", cluster.dsn(2))
    assert refused.returncode == 1
    assert "this database is worker 2 of cluster" in refused.stderr
    eventually("the workers follow node 3", lambda: follows(cluster, 3, (1, 2, 0)), seconds=90)
    assert check(cluster.dsn(2), data=True, patience=90) == []
    assert through(cluster, 2, "select shardman.set_zone(2, 'b')")[0] == "success"
