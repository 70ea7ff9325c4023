"""The lord's database is lost inside a cut-over, and the shardlord lives: clients go on, through both nodes and
while it is still lost, unless nobody can know what it has decided."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from crash.stops import Point, armed, points, wait_until_stopped
from crash.tables import ROWS, make_t, owner
from shardman.lord.lease import LEASE_S
from shardman.nodes.invariants import check
from shardman.pg.connection import SyncConnection
from shardman.testing.cluster import Cluster
from shardman.testing.faults import freeze
from shardman.testing.plugin import ProxyFactory
from shardman.testing.waiting import eventually

#: Within this clients go on where the loss is seen at once, and where the server keeps silent. It takes 0.1 s,
#: and 3 s more than is waited for an answer; a busy machine takes the rest. Otherwise they never would.
SOON_S = 15.0
SILENT_S = LEASE_S + SOON_S
COMMIT_LOCK = 816

#: Its COMMIT has been sent, and waits.
_COMMIT_WAITS = """
create or replace function public.commit_waits() returns trigger language plpgsql as $$
begin
    perform pg_advisory_xact_lock(816);
    return null;
end
$$;
create constraint trigger commit_waits after update of switched on shardman.cmd_log
    deferrable initially deferred for each row when (new.switched and not old.switched)
    execute function public.commit_waits();
"""


@pytest.fixture(scope="module")
def ready(cluster: Cluster) -> Cluster:
    return make_t(cluster)


def has_rows(cluster: Cluster, node: int) -> bool:
    """Whether the node says that it is the owner."""
    return bool(
        cluster.value(
            node,
            "select exists (select from pg_inherits where inhrelid = to_regclass('t_0_data'))",
        )
    )


def works(cluster: Cluster, node: int) -> bool:
    """Whether a client that writes to the whole table goes on, through this node."""
    with suppress(psycopg.Error), cluster.connect(node) as client:
        client.execute("set statement_timeout = 1000")
        return client.execute("update t set v = v").rowcount == ROWS
    return False


def go_on(cluster: Cluster, seconds: float) -> None:
    """Clients of all workers go on within this."""
    begun = time.monotonic()
    for node in (1, 2, 3):
        eventually(
            f"a client of node {node} goes on",
            lambda node=node: works(cluster, node),  # type: ignore[misc]
            seconds=seconds,
            after=cluster.logs,
        )
    assert time.monotonic() - begun < seconds


def lost(cluster: Cluster, how: str) -> Callable[[], None]:
    """Takes the lord's database away; returns what brings it back."""
    if how == "frozen":
        return freeze(cluster, 0)
    cluster.stop_node(0, "immediate")
    return lambda: cluster.start_node(0)


def settled(cluster: Cluster, cmd: int, dest: int) -> int:
    """The move has happened, and nothing is left behind; how often it was begun."""
    done = cluster.wait(cmd, 60)
    assert done.status == "success", done
    assert owner(cluster) == dest
    for node in (1, 2, 3):
        assert cluster.value(node, "select count(*) from t") == ROWS
    assert check(cluster.lord_dsn, data=True, patience=20) == []
    return int(cluster.value(0, "select attempt from shardman.cmd_log where id = %s", (cmd,)))


def log_of(cluster: Cluster) -> str:
    return "".join(each.read_text() for each in cluster.local.directory.glob("log/*lord*.log"))


def before_switch(cluster: Cluster, of: str = "move_part") -> Point:
    """Everything is prepared, the transaction of the switch is open, and its COMMIT has not been sent."""
    with cluster.connect(0) as lord:
        row = lord.execute(
            "select max(id) from shardman.cmd_log where cmd_type = %s and status = 'success'", (of,)
        ).fetchone()
        assert row is not None
        switch = switch_of(lord, row[0])
        return next(p for p in points(lord, row[0]) if p.n == switch)


def switch_of(lord: SyncConnection, cmd: int) -> int:
    row = lord.execute(
        "select min(n) from shardman.cmd_steps where cmd_id = %s and phase = 'switch'", (cmd,)
    ).fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture
def route(ready: Cluster) -> tuple[int, int]:
    """From where and to where `t_0` is to be moved; there was a move before, from which points are known."""
    src = owner(ready)
    if not ready.sql(0, "select 1 from shardman.cmd_log where cmd_type = 'move_part'"):
        done = ready.cmd("select shardman.move_part('t_0', %s)", (src % 3 + 1,))
        assert done.status == "success", done
        src = src % 3 + 1
    return src, src % 3 + 1


@contextmanager
def commit_waiting(cluster: Cluster, dest: int) -> Iterator[tuple[int, SyncConnection]]:
    """Inside, the COMMIT of a move's switch has arrived at the lord's database, and waits until the lock is
    given back. Its id, and who has the lock."""
    with psycopg.connect(cluster.lord_dsn, autocommit=True) as holder:
        holder.execute(_COMMIT_WAITS)
        holder.execute("select pg_advisory_lock(%s)", (COMMIT_LOCK,))
        cmd = cluster.submit("select shardman.move_part('t_0', %s)", (dest,))
        waiting = "select from pg_locks where locktype = 'advisory' and objid = %s and not granted"
        eventually(
            f"command {cmd} waits in its commit",
            lambda: holder.execute(waiting, (COMMIT_LOCK,)).fetchall(),
            every=0.02,
            after=lambda: cluster.sql(0, "select * from shardman.cmd_log where id = %s", (cmd,)),
        )
        assert not works(cluster, 1)
        yield cmd, holder


@pytest.fixture(autouse=True)
def no_trigger(ready: Cluster) -> Iterator[None]:
    yield
    with suppress(psycopg.OperationalError):  # the last test leaves no lord's database
        ready.sql(0, "drop trigger if exists commit_waits on shardman.cmd_log")


def switched(cluster: Cluster, node: int, cmd: int) -> bool:
    return bool(
        cluster.sql(node, "select 1 from shardman.cmd_log where id = %s and switched", (cmd,))
    )


@pytest.mark.parametrize("how", ["dead", "frozen"])
def test_before_the_commit_is_sent(ready: Cluster, route: tuple[int, int], how: str) -> None:
    """It never will be: both nodes are as they were."""
    src, dest = route
    with armed(ready.lord_dsn, "move_part", before_switch(ready)) as holder:
        cmd = ready.submit("select shardman.move_part('t_0', %s)", (dest,))
        wait_until_stopped(holder, cmd)
        assert not works(ready, src)
        back = lost(ready, how)
        try:
            go_on(ready, SOON_S if how == "dead" else SILENT_S)
            assert has_rows(ready, src) and not has_rows(ready, dest)
        finally:
            back()
    assert settled(ready, cmd, dest) == 2


@contextmanager
def shardlord_behind(cluster: Cluster, dsn: str, log: Path) -> Iterator[None]:
    """Another shardlord acts, which reaches the lord's database by this connection string."""
    cluster.stop_lord()
    with log.open("wb") as stderr:
        process = subprocess.Popen([sys.executable, "-m", "shardman", "lord", dsn], stderr=stderr)
    try:
        yield
    finally:
        process.kill()
        process.wait()
        cluster.start_lord()


def test_the_answer_is_lost(
    ready: Cluster, route: tuple[int, int], proxy_factory: ProxyFactory, tmp_path: Path
) -> None:
    """The decision is found on a worker: it has happened."""
    src, dest = route
    proxy = proxy_factory(ready.lord_dsn)
    log = tmp_path / "log"
    with shardlord_behind(ready, proxy.dsn, log):
        with commit_waiting(ready, dest) as (cmd, holder):
            proxy.cut(to_server=False)
            holder.execute("select pg_advisory_unlock(%s)", (COMMIT_LOCK,))
            # Those that are locked, too.
            for node in (src, dest, dest % 3 + 1):
                eventually("it has it", lambda node=node: switched(ready, node, cmd), every=0.02)  # type: ignore[misc]
            ready.stop_node(0, "immediate")
            proxy.drop()
            proxy.heal()
        go_on(ready, SOON_S)
        assert has_rows(ready, dest) and not has_rows(ready, src)
        assert "committed" in log.read_text()
        ready.start_node(0)
        assert settled(ready, cmd, dest) == 1


@pytest.mark.parametrize("how", ["dead", "frozen"])
def test_behind_the_commit(ready: Cluster, route: tuple[int, int], how: str) -> None:
    """The shardlord comes to its answer when nothing else is to be had of the lord's database any more."""
    src, dest = route
    pid = ready.lord_pid
    assert pid is not None
    with commit_waiting(ready, dest) as (cmd, holder):
        os.kill(pid, signal.SIGSTOP)
        try:
            holder.execute("select pg_advisory_unlock(%s)", (COMMIT_LOCK,))
            eventually("a worker has it", lambda: switched(ready, dest % 3 + 1, cmd), every=0.02)
            back = lost(ready, how)
        finally:
            os.kill(pid, signal.SIGCONT)
        try:
            go_on(ready, SOON_S if how == "dead" else SILENT_S)
            assert has_rows(ready, dest) and not has_rows(ready, src)
        finally:
            back()
    assert settled(ready, cmd, dest) == 1


def test_between_the_two_commits(ready: Cluster, route: tuple[int, int]) -> None:
    """The source is released, the destination is not."""
    src, dest = route
    second = ready.value(
        0,
        "select max(n) from shardman.cmd_steps where kind = 'commit_prepared' and cmd_id ="
        " (select max(id) from shardman.cmd_log where cmd_type = 'move_part')",
    )
    with armed(ready.lord_dsn, "move_part", Point(second, "", "started")) as holder:
        cmd = ready.submit("select shardman.move_part('t_0', %s)", (dest,))
        wait_until_stopped(holder, cmd)
        assert not works(ready, src)
        ready.stop_node(0, "immediate")
        go_on(ready, SOON_S)
        assert has_rows(ready, dest) and not has_rows(ready, src)
        ready.start_node(0)
    assert settled(ready, cmd, dest) == 1


def says_what_stays(cluster: Cluster, cmd: int) -> None:
    eventually(
        "the shardlord says what stays",
        lambda: f"cmd={cmd}" in log_of(cluster).rpartition("no worker that answers has")[2],
        seconds=SOON_S,
        after=lambda: log_of(cluster)[-3000:],
    )


@pytest.mark.parametrize("happened", [False, True])
def test_what_nobody_can_know_stays_open(
    ready: Cluster, route: tuple[int, int], happened: bool
) -> None:
    """The COMMIT was sent, and no worker has the decision: it may be on the disk of the lord's database."""
    src, dest = route
    with commit_waiting(ready, dest) as (cmd, holder):
        if happened:
            streams = (
                "select pid from pg_stat_replication where application_name ~ '^shardman_meta'"
            )
            for (pid,) in holder.execute(streams).fetchall():
                os.kill(pid, signal.SIGSTOP)
            holder.execute("select pg_advisory_unlock(%s)", (COMMIT_LOCK,))
            eventually("it is decided", lambda: switched(ready, 0, cmd), every=0.02)
        ready.kill_node(0)
    says_what_stays(ready, cmd)
    assert not works(ready, src) and not works(ready, dest)
    ready.start_node(0)
    go_on(ready, 20)
    assert settled(ready, cmd, dest) == (1 if happened else 2)


def test_the_database_lives_and_the_session_is_lost(ready: Cluster, route: tuple[int, int]) -> None:
    """The journal decides, and the next leadership finds it so."""
    _, dest = route
    with commit_waiting(ready, dest) as (cmd, holder):
        holder.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name ~ '^shardman lord'"
        )
        holder.execute("select pg_advisory_unlock(%s)", (COMMIT_LOCK,))
    go_on(ready, SOON_S)
    assert settled(ready, cmd, dest) == 2


def test_a_newer_leadership_is_not_disturbed(
    ready: Cluster, route: tuple[int, int], tmp_path: Path
) -> None:
    """A shardlord that wakes up with something in doubt, while another one has prepared the same anew."""
    src, dest = route
    point = before_switch(ready)
    pid = ready.lord_pid
    assert pid is not None
    prepared = "select gid from pg_prepared_xacts order by 1"
    with armed(ready.lord_dsn, "move_part", point) as holder:
        cmd = ready.submit("select shardman.move_part('t_0', %s)", (dest,))
        wait_until_stopped(holder, cmd)
        first = [ready.sql(node, prepared) for node in (src, dest)]
        os.kill(pid, signal.SIGSTOP)
        try:
            holder.execute(
                "insert into public.crash_point values ('move_part', %s, %s)",
                (point.n, point.state),
            )
            with (tmp_path / "log").open("wb") as stderr:
                other = subprocess.Popen(
                    [sys.executable, "-m", "shardman", "lord", ready.lord_dsn], stderr=stderr
                )
            eventually(
                "the other one has prepared it again",
                lambda: [ready.sql(node, prepared) for node in (src, dest)],
                until=lambda now: all(now) and now != first,
                after=(tmp_path / "log").read_text,
            )
            again = [ready.sql(node, prepared) for node in (src, dest)]
            os.kill(pid, signal.SIGCONT)
            eventually("the first one stands by", lambda: standing_by(ready), seconds=20)
            assert [ready.sql(node, prepared) for node in (src, dest)] == again
            holder.execute("select pg_advisory_unlock(%s)", (815,))
            assert settled(ready, cmd, dest) == 2
        finally:
            os.kill(pid, signal.SIGCONT)
            other.kill()
            other.wait()


def standing_by(cluster: Cluster) -> int:
    return int(
        cluster.value(
            0, "select count(*) from pg_stat_activity where application_name = 'shardman standby'"
        )
    )


def test_a_conversion(ready: Cluster) -> None:
    """A plain table that becomes a sharded one is locked as well."""
    for name in ("u", "w"):
        ready.sql(2, f"create table {name} (id int primary key, v text)")
        ready.sql(2, f"insert into {name} select i, 'v' from generate_series(1, {ROWS}) i")
    shard = "select shardman.create_hash_partitions(2, %s, 'id', 3)"
    assert ready.cmd(shard, ("u",)).status == "success"
    point = before_switch(ready, "create_hash_partitions")
    with armed(ready.lord_dsn, "create_hash_partitions", point) as holder:
        cmd = ready.submit(shard, ("w",))
        wait_until_stopped(holder, cmd)
        ready.stop_node(0, "immediate")
        with ready.connect(2) as client:
            client.execute("set statement_timeout = '10s'")
            assert client.execute("update w set v = v").rowcount == ROWS
        ready.start_node(0)
    done = ready.wait(cmd, 60)
    assert done.status == "success", done
    assert ready.value(3, "select count(*) from w") == ROWS
    assert check(ready.lord_dsn, data=True, patience=20) == []


def test_another_lord_decides(ready: Cluster, route: tuple[int, int], tmp_path: Path) -> None:
    """The lord's database does not come back, and nobody has what it was about to decide. Its shardlord lives,
    and asks on."""
    src, dest = route
    with commit_waiting(ready, dest) as (cmd, _):
        ready.kill_node(0)
    says_what_stays(ready, cmd)
    program = [sys.executable, "-m", "shardman"]
    # One of them has the newest copy.
    promoted = next(
        node
        for node in (1, 2, 3)
        if not subprocess.run(
            [*program, "promote-lord", str(node), "--force", "--dsn", ready.dsn(node)], check=False
        ).returncode
    )
    with (tmp_path / "log").open("wb") as stderr:
        shardlord = subprocess.Popen([*program, "lord", ready.dsn(promoted)], stderr=stderr)
    try:
        go_on(ready, 30)
        row = "select status::text, attempt from shardman.cmd_log where id = %s"
        eventually(
            "the move happens",
            lambda: ready.sql(promoted, row, (cmd,)),
            until=lambda rows: rows == [("success", 2)],
            after=(tmp_path / "log").read_text,
        )
        assert has_rows(ready, dest) and not has_rows(ready, src)
        assert check(ready.dsn(promoted), data=True, patience=60) == []
    finally:
        shardlord.kill()
        shardlord.wait()
