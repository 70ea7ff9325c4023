"""One process of a server hangs, or fails again and again: clients wait for some seconds at most, and nothing
else is held up."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
import pytest
from psycopg import sql

from shardman.lord.sessions import open_session
from shardman.nodes.invariants import check
from shardman.nodes.status import read
from shardman.pg.bounded import unhurried
from shardman.pg.connection import SyncConnection
from shardman.testing import eventually
from shardman.testing.cluster import Cluster
from shardman.testing.faults import freeze
from shardman.testing.load import make_bank

SIZE = 300
#: Seconds, so that the tests are short.
FAILOVER_AFTER = 2.0
#: How much longer than that clients may wait: three seconds, and what a machine that is busy takes.
PATIENCE = 3.0 + 3.0


@pytest.fixture(scope="module")
def bank(cluster: Cluster) -> Cluster:
    """Accounts with one replica on three workers."""
    make_bank(cluster, SIZE)
    done = cluster.cmd("select shardman.set_replevel('accounts', 1)")
    assert done.status == "done", done
    cluster.sql(
        0, "insert into shardman.settings values ('failover_after', '2'), ('rebuild_after', '0.5')"
    )
    return cluster


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """These processes do nothing meanwhile."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def pairs(cluster: Cluster) -> list[tuple[int, int]]:
    """Nodes of primaries and of their replicas."""
    found = cluster.sql(
        0,
        "select distinct p.owner, r.owner from shardman.partitions p"
        " join shardman.partitions r using (part_name)"
        " where p.prv is null and r.prv is not null and r.stale_since is null order by 1, 2",
    )
    return [(int(src), int(dest)) for src, dest in found]


def apply_worker(cluster: Cluster, src: int, dest: int) -> int:
    """The process that applies on dest what comes from src."""
    query = "select pid from pg_stat_subscription where subname ~ %s and pid is not null"
    return int(cluster.value(dest, query, (f"^shardman_[a-z0-9]{{6}}_{src}_{dest}$",)))


def write(cluster: Cluster, via: int) -> float:
    """A client that writes to every partition, and tries again until it succeeds; how long that took."""
    begun = time.monotonic()
    eventually(
        "a write to every partition",
        lambda: cluster.sql(via, "update accounts set touched = touched + 1 returning 1"),
        tolerate=Exception,
        seconds=60,
    )
    return time.monotonic() - begun


def settled(cluster: Cluster) -> None:
    eventually(
        "every partition has its replica",
        lambda: cluster.value(
            0, "select sum(stale_replicas + below_level) from shardman.status_tables"
        ),
        until=lambda n: n == 0,
        # What is given up again and again, as by the tests of this file, is renewed ever more seldom.
        seconds=180,
    )
    assert check(cluster.lord_dsn, data=True, patience=60) == []


def test_an_apply_worker_hangs_and_another_node_dies(bank: Cluster) -> None:
    src, dest = pairs(bank)[0]
    (third,) = set(bank.worker_dsns) - {src, dest}
    with stopped(apply_worker(bank, src, dest)):
        assert write(bank, src) < FAILOVER_AFTER + PATIENCE
        assert "is stopped: let it go on" in why_given_up(bank, src, dest)
        # Its subscription cannot be dropped while it hangs, and holds nobody up.
        bank.kill_node(third)
        assert write(bank, src) < FAILOVER_AFTER + PATIENCE
    bank.start_node(third)
    settled(bank)


async def test_every_statement_of_the_shardlord_has_an_end(cluster: Cluster) -> None:
    """Its server process hangs, or takes too long: the session ends, and leaves nobody at work."""
    conn = await open_session(cluster.dsn(1), "test of ends")
    begun = time.monotonic()
    with unhurried(conn, 0.3), pytest.raises(psycopg.OperationalError, match="not answered for"):
        await conn.execute("select pg_sleep(100)")
    hung = await open_session(cluster.dsn(1), "test of ends")
    with stopped(hung.info.backend_pid), pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await hung.execute("select pg_sleep(100)")
    assert time.monotonic() - begun < 10
    eventually(
        "nobody sleeps any more",
        lambda: cluster.value(
            1, "select count(*) from pg_stat_activity where application_name = 'test of ends'"
        ),
        until=lambda left: left == 0,
        seconds=10,
    )


async def test_a_session_is_whole_however_often_it_is_interrupted(cluster: Cluster) -> None:
    """A cancellation that comes while the first is still answered must not leave half an answer behind:
    whatever is undone in that session would fail."""
    conn = await open_session(cluster.dsn(1), "test of ends")
    await conn.execute("begin")
    for pause in (0, 0, 0.001, 0.01, 0.05):
        task = asyncio.create_task(conn.execute("select pg_sleep(100)"))
        await asyncio.sleep(0.05)
        while not task.done():
            task.cancel()
            await asyncio.sleep(pause)
        assert task.cancelled()
        await conn.execute("rollback")
        await conn.execute("begin")
    await conn.close()


def test_walsenders_hang(bank: Cluster) -> None:
    """All of one node's."""
    src = pairs(bank)[0][0]
    walsenders = bank.sql(src, "select pid from pg_stat_replication")
    with stopped(*(pid for (pid,) in walsenders)):
        assert write(bank, src) < FAILOVER_AFTER + PATIENCE
    settled(bank)


def why_given_up(cluster: Cluster, src: int, dest: int) -> str:
    """The reason of the last time."""
    found = cluster.sql(
        0,
        "select reason from shardman.status_failovers where node = %s and to_node = %s order by cmd_id desc",
        (src, dest),
    )
    return str(found[0][0])


def test_an_apply_fails_again_and_again(bank: Cluster) -> None:
    """What comes cannot be written on the replica."""
    src, dest = pairs(bank)[0]
    (data,) = bank.sql(
        dest,
        "select data::oid::regclass::text from shardman.channel_copies() where src = %s and not here limit 1",
        (src,),
    )[0]
    here = "set shardman.ddl = 'here'; "
    refuse = here + "alter table {} add constraint refuses check (touched < 0) not valid"
    bank.sql(dest, sql.SQL(refuse).format(sql.Identifier(data)))
    try:
        assert write(bank, src) < FAILOVER_AFTER + PATIENCE
    finally:
        bank.sql(
            dest,
            sql.SQL(here + "alter table {} drop constraint refuses").format(sql.Identifier(data)),
        )
    why = why_given_up(bank, src, dest)
    assert "has failed" in why or "lacks CHECK ((touched < 0)), which the replica's has" in why
    settled(bank)


def test_a_server_or_its_checkpointer_hangs(bank: Cluster) -> None:
    src, dest = pairs(bank)[0]
    pid = bank.value(src, "select pid from pg_stat_activity where backend_type = 'checkpointer'")
    with stopped(pid):
        assert write(bank, src) < FAILOVER_AFTER + PATIENCE
        said = bank.sql(
            src, "select subject, hint from shardman.node_problems where problem = 'is stopped'"
        )
        assert said == [
            (f"checkpointer, process {pid}", "Let it go on (SIGCONT), or restart the server")
        ]
    go_on = freeze(bank, dest)
    try:
        # Before 17 a session that is connecting to it cannot be ended.
        more = (
            0
            if bank.value(src, "select current_setting('server_version_num')::int") >= 170000
            else 10
        )
        assert write(bank, src) < FAILOVER_AFTER + PATIENCE + more
    finally:
        go_on()
    settled(bank)


def filled(cluster: Cluster, node: int) -> list[SyncConnection]:
    """Sessions until a node takes no more, not even a superuser's."""
    taken = []
    with suppress(psycopg.OperationalError):
        while True:
            taken.append(cluster.connect(node))
    return taken


def test_no_connection_is_left(bank: Cluster) -> None:
    """The shardlord goes on with what it has, or says so; nobody takes that for a node that is down."""
    src, dest = pairs(bank)[0]
    last = bank.value(0, "select max(id) from shardman.cmd_log")
    part = bank.value(
        0,
        "select min(part_name) from shardman.partitions where relation = 'marks' and owner = %s",
        (dest,),
    )
    taken = filled(bank, dest)
    try:
        (state,) = (n for n in read(bank.lord_dsn).nodes if n.id == dest)
        assert state.full, state
        assert "no connection left" in str(state.why)
        done = bank.cmd("select shardman.move_part(%s, %s)", (part, src))
        assert done.status == "success" or done.code == "server_full", done
        taken += filled(bank, dest)
        taken[0].execute("update accounts set touched = touched + 1")
        time.sleep(FAILOVER_AFTER + 1)
    finally:
        for conn in taken:
            conn.close()
    assert not bank.sql(0, "select * from shardman.status_failovers where cmd_id > %s", (last,))
    settled(bank)
