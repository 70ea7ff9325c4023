"""One shardlord acts; another takes over; an old one that wakes up is refused everywhere."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from shardman.lord.sessions import open_session
from shardman.tasks import all_of
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually


@contextmanager
def another_shardlord(dsn: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "shardman", "lord", dsn], stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


def epoch(cluster: Cluster) -> int:
    return int(cluster.value(0, "select epoch from shardman.lease"))


def standing_by(cluster: Cluster) -> int:
    return int(
        cluster.value(
            0, "select count(*) from pg_stat_activity where application_name = 'shardman standby'"
        )
    )


def old_sessions(cluster: Cluster, epoch: int) -> int:
    """How many a shardlord has on all the nodes."""
    query = "select count(*) from pg_stat_activity where application_name = %s"
    return sum(cluster.value(n, query, (f"shardman lord {epoch}",)) for n in (0, 1, 2, 3))


def which_sessions(cluster: Cluster, epoch: int) -> list[tuple[object, ...]]:
    """What they do, for the message of a failure."""
    query = "select %s, pid, state, wait_event, backend_start, state_change, query from pg_stat_activity"
    query += " where application_name = %s"
    return [
        row for n in (0, 1, 2, 3) for row in cluster.sql(n, query, (n, f"shardman lord {epoch}"))
    ]  # type: ignore[arg-type]


def test_a_second_shardlord_stands_by_and_takes_over(cluster: Cluster) -> None:
    before = epoch(cluster)
    with another_shardlord(cluster.lord_dsn) as second:
        eventually(
            "another one stands by",
            lambda: standing_by(cluster),
            until=lambda n: n == 1,
            every=0.02,
        )
        assert epoch(cluster) == before
        cluster.stop_lord(kill=True)
        eventually(
            "the other one takes over", lambda: epoch(cluster) > before, seconds=30, every=0.02
        )  # 0.3 s on an idle machine
        assert cluster.cmd("select shardman.rm_node(99)").status == "failed"
        second.terminate()
        assert second.wait(60) == 0
    cluster.start_lord()
    assert cluster.cmd("select shardman.rm_node(99)").status == "failed"


def test_a_shardlord_that_hangs_is_replaced_and_refused_when_it_wakes(cluster: Cluster) -> None:
    eventually(
        "a command ends",
        lambda: cluster.cmd("select shardman.rm_node(99)"),
        until=lambda done: done.status == "failed",
    )
    before = epoch(cluster)
    pid = cluster.lord_pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        with another_shardlord(cluster.lord_dsn):
            eventually("the other one takes over", lambda: epoch(cluster) > before, every=0.02)
            eventually(
                "every node has the new epoch",
                lambda: all(
                    cluster.value(n, "select epoch from shardman.local") > before for n in (1, 2, 3)
                ),
            )
            os.kill(pid, signal.SIGCONT)
            # It may knock for a while, until it has seen that its time is over, and then no more.
            eventually(
                "no old session is left",
                lambda: old_sessions(cluster, before),
                until=lambda n: n == 0,
                seconds=30,
                after=lambda: which_sessions(cluster, before),
            )
            time.sleep(1.5)
            assert old_sessions(cluster, before) == 0
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_node_refuses_an_old_epoch(cluster: Cluster) -> None:
    with cluster.connect(1) as node:
        row = node.execute("select cluster, epoch from shardman.local").fetchone()
        assert row is not None
        with pytest.raises(psycopg.Error) as refused:
            node.execute("select shardman.admit(%s, %s)", (row[0], row[1] - 1))
        assert refused.value.sqlstate == "SHM01"
        with pytest.raises(psycopg.Error) as stranger:
            node.execute("select shardman.admit('zzzzzz', %s)", (row[1],))
        assert stranger.value.sqlstate == "SHM02"


def test_the_lord_s_database_may_restart(cluster: Cluster) -> None:
    cluster.stop_node(0, "immediate")
    cluster.start_node(0)
    cmd = cluster.submit("select shardman.rm_node(99)")
    assert cluster.wait(cmd).status == "failed"


def test_work_side_by_side_ends_together(cluster: Cluster) -> None:
    """Otherwise the next connection gets the number of a socket for which somebody still waits."""

    async def fail() -> None:
        await asyncio.sleep(0.05)
        raise ValueError

    async def try_it() -> None:
        waiting = await open_session(cluster.lord_dsn, "test")
        with pytest.raises(ValueError):
            await all_of(waiting.execute("select pg_sleep(60)"), fail())
        await waiting.close()
        again = await open_session(cluster.lord_dsn, "test")
        await again.close()

    asyncio.run(try_it())
