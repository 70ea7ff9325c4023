"""kill -9 of the shardlord before and after every step of a move; of the servers at every step."""

from __future__ import annotations

import os
import signal
import time

import pytest

from crash.stops import Point, armed, kill_shardlord, points, sample, wait_until_stopped
from crash.tables import ROWS, make_t, owner
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually


@pytest.fixture(scope="module")
def ready(cluster: Cluster) -> Cluster:
    return make_t(cluster)


def journal(cluster: Cluster) -> list[Point]:
    """The instants of a move, taken from one that was not disturbed."""
    src = owner(cluster)
    cmd = cluster.submit("select shardman.move_part('t_0', %s)", (src % 3 + 1,))
    assert cluster.wait(cmd).status == "success"
    with cluster.connect(0) as lord:
        return points(lord, cmd)


def settled(cluster: Cluster, cmd: int, src: int, dest: int) -> None:
    """The move happened or it did not; every row is there; nothing is left behind."""
    done = cluster.wait(cmd, 60)
    assert done.status in ("success", "failed"), done
    assert owner(cluster) == (dest if done.status == "success" else src)
    for node in (1, 2, 3):
        assert cluster.value(node, "select count(*) from t") == ROWS
    assert check(cluster.lord_dsn, data=True, patience=20) == []


def told(cluster: Cluster, cmd: int) -> None:
    """What was measured before the switch is known whoever finishes the move; how long the cut-over was, only
    when one shardlord did all of it."""
    data = cluster.wait(cmd).data
    assert data is not None
    assert data["rows"] > 0 and data["bytes"] > 0 and data["tries"] >= 1
    assert data.get("recovered", False) is ("cut_over_ms" not in data)


@pytest.mark.timeout(600)
def test_the_shardlord_is_killed_at_every_step(ready: Cluster) -> None:
    for point in sample(journal(ready), 14):
        src = owner(ready)
        dest = src % 3 + 1
        with armed(ready.lord_dsn, "move_part", point) as holder:
            cmd = ready.submit("select shardman.move_part('t_0', %s)", (dest,))
            wait_until_stopped(holder, cmd)
            kill_shardlord(ready, holder)
        ready.start_lord()
        settled(ready, cmd, src, dest)
        # A shardlord's death delays a command and does not fail it.
        assert owner(ready) == dest, point
        told(ready, cmd)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("victim", ["source", "destination", "lord"])
def test_a_server_is_killed_at_every_step(ready: Cluster, victim: str) -> None:
    for point in sample(journal(ready), 25, start=3):
        src = owner(ready)
        dest = src % 3 + 1
        node = {"source": src, "destination": dest, "lord": 0}[victim]
        with armed(ready.lord_dsn, "move_part", point) as holder:
            cmd = ready.submit("select shardman.move_part('t_0', %s)", (dest,))
            wait_until_stopped(holder, cmd)
            ready.kill_node(node)
        time.sleep(0.2)
        ready.start_node(node)
        settled(ready, cmd, src, dest)


def wait_until_held(ready: Cluster, cmd: int) -> None:
    """Until a command waits for a client that holds what it needs."""
    whom = "select waits_for from shardman.cmd_log where id = %s"
    eventually(
        f"command {cmd} waits for a client",
        lambda: ready.value(0, whom, (cmd,)) or "",
        until=lambda said: "pid" in said,
        every=0.05,
    )


def test_sigterm_leaves_the_command_to_the_next_shardlord(ready: Cluster) -> None:
    src = owner(ready)
    dest = src % 3 + 1
    with ready.connect(src) as holder:
        holder.execute("begin")
        holder.execute("lock table t_0 in row exclusive mode")
        cmd = ready.submit("select shardman.move_part('t_0', %s)", (dest,))
        wait_until_held(ready, cmd)
        ready.stop_lord()
        assert ready.value(
            0, "select status::text from shardman.cmd_log where id = %s", (cmd,)
        ) == ("waiting")
        holder.execute("commit")
    ready.start_lord()
    settled(ready, cmd, src, dest)
    assert owner(ready) == dest


def test_sigusr1_cancels_what_runs(ready: Cluster) -> None:
    src = owner(ready)
    with ready.connect(src) as holder:
        holder.execute("begin")
        holder.execute("lock table t_0 in row exclusive mode")
        cmd = ready.submit("select shardman.move_part('t_0', %s)", (src % 3 + 1,))
        wait_until_held(ready, cmd)
        pid = ready.lord_pid
        assert pid is not None
        os.kill(pid, signal.SIGUSR1)
        done = ready.wait(cmd, 60)
        assert (done.status, done.error, done.code) == ("canceled", None, "canceled")
        holder.execute("commit")
    assert check(ready.lord_dsn, data=True) == []
