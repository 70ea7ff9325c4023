"""Transactions of a client over several nodes: all of it, or nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import psycopg
import pytest

import shardman
from client.tables import accounts, bob
from shardman.nodes.invariants import check
from shardman.nodes.status import read
from shardman.testing import eventually
from shardman.testing.cluster import Cluster

PARTS = "select coalesce(sum(n), 0) from (select count(*) as n from pg_prepared_xacts) x"


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Cluster:
    """Accounts on three nodes, owned by an ordinary role, and another table beside them."""
    return accounts(cluster)


@pytest.fixture
def db(nodes: Cluster) -> Iterator[shardman.Connection]:
    with shardman.connect(bob(nodes, 2)) as db:
        db.execute("update acc set n = 30 where id = any (%s)", (list(range(1, 61)),))
        db.commit()
        yield db
        db.rollback()
    assert prepared(nodes) == 0


def prepared(cluster: Cluster) -> int:
    return sum(cluster.value(n, PARTS) for n in (1, 2, 3))


def keys(cluster: Cluster) -> dict[int, int]:
    """A key on each node."""
    one_of_each = """
    select p.node, min(i) from generate_series(1, 60) i
     cross join lateral shardman.partition_of('app.acc', i) p group by p.node
    """
    return dict(cluster.sql(1, one_of_each))


def values(cluster: Cluster, *ids: int) -> list[int]:
    return [cluster.value(1, "select n from app.acc where id = %s", (i,)) for i in ids]


def pay(db: Any, id_: int, n: int) -> Any:
    return db.execute("update acc set n = n + %s where id = %s", (n, id_))


def test_all_of_it_or_nothing(nodes: Cluster, db: shardman.Connection) -> None:
    a, b, c = (keys(nodes)[n] for n in (1, 2, 3))
    pay(db, a, -10), pay(db, b, 4), pay(db, c, 6)
    assert len(db.router.parts()) == 3
    assert values(nodes, a, b, c) == [30, 30, 30]
    db.commit()
    assert values(nodes, a, b, c) == [20, 34, 36]
    pay(db, a, -10), pay(db, b, 4)
    db.rollback()
    assert values(nodes, a, b, c) == [20, 34, 36]


def fail(*_done: Any) -> Exception:
    return ZeroDivisionError()


def test_blocks_and_savepoints(nodes: Cluster, db: shardman.Connection) -> None:
    a, b = (keys(nodes)[n] for n in (1, 3))
    with db.transaction():
        pay(db, a, -1)
        with db.transaction():
            pay(db, b, 1)
        with pytest.raises(psycopg.errors.CheckViolation), db.transaction():
            fail(pay(db, a, 5), pay(db, b, -100))
        with db.transaction(force_rollback=True):
            pay(db, b, 7)
    assert values(nodes, a, b) == [29, 31]
    with pytest.raises(ZeroDivisionError), db.transaction():
        raise fail(pay(db, a, -1), pay(db, b, 1))
    with db.transaction():
        pay(db, a, -1), pay(db, b, 1)
        raise psycopg.Rollback
    with db.transaction(force_rollback=True):
        pay(db, a, -1), pay(db, b, 1)
    assert values(nodes, a, b) == [29, 31]


def test_who_only_reads_commits_nothing(nodes: Cluster, db: shardman.Connection) -> None:
    a, b = (keys(nodes)[n] for n in (1, 3))
    before = nodes.value(1, "select count(*) from shardman.client_transactions")
    with db.transaction():
        pay(db, a, 1)
        assert db.execute("select n from acc where id = %s", (b,)).fetchone() == (30,)
        assert len(db.router.parts()) == 2
        assert db.execute("select 1").fetchone() == (1,)
    assert values(nodes, a) == [31]
    assert nodes.value(1, "select count(*) from shardman.client_transactions") == before


def test_a_failure_on_one_node_is_one_of_all(nodes: Cluster, db: shardman.Connection) -> None:
    a, b = (keys(nodes)[n] for n in (1, 3))
    pay(db, a, 1)
    with pytest.raises(psycopg.errors.CheckViolation):
        pay(db, b, -100)
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        pay(db, a, 1)
    db.commit()
    assert values(nodes, a, b) == [30, 30]


def test_what_cannot_be_a_part_is_refused(nodes: Cluster, db: shardman.Connection) -> None:
    a, b = (keys(nodes)[n] for n in (1, 3))
    pay(db, a, 1), pay(db, b, 1)
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        db.execute("create temp table t (a int)")
    # Each part answers for its own partitions.
    assert db.execute("select sum(n) from acc").fetchone() == (60 * 30 + 2,)
    unlike = "select count(*) from acc a join acc b on a.n = b.n"
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="taken in node 1 and node 3"):
        db.execute(unlike)
    with pytest.raises(psycopg.errors.FeatureNotSupported), db.pipeline():
        pass
    db.execute("commit")
    assert db.router.parts() == []
    assert values(nodes, a, b) == [31, 31]
    # One that has used others through its first node goes on in that way.
    with db.transaction():
        assert db.execute("select sum(n) from acc").fetchone() == (60 * 30 + 2,)
        pay(db, a, 1), pay(db, b, 1)
        assert db.execute("select sum(n) from acc").fetchone() == (60 * 30 + 4,)
    with shardman.connect(bob(nodes, 2), atomic=False) as other:
        pay(other, a, 1), pay(other, b, 1)
        assert len(other.router.parts()) == 1
    assert values(nodes, a, b) == [33, 33]


def test_a_partition_that_moved(nodes: Cluster) -> None:
    a, b = (keys(nodes)[n] for n in (1, 3))
    x, y = values(nodes, a, b)
    with shardman.connect(bob(nodes, 2), refresh_seconds=3600) as db:
        pay(db, a, 0), pay(db, b, 0)
        db.commit()
        part = nodes.value(
            1, "select partition from shardman.partition_of('app.acc', %s)", (a,)
        ).replace("app.", "", 1)
        assert nodes.cmd("select shardman.move_part(%s, 2)", (f"app.{part}",)).status == "success"
        pay(db, a, -3), pay(db, b, 3)
        with pytest.raises(psycopg.errors.SerializationFailure, match="moved"):
            db.commit()
        pay(db, a, -3), pay(db, b, 3)
        db.commit()
    assert values(nodes, a, b) == [x - 3, y + 3]
    assert nodes.cmd("select shardman.move_part(%s, 1)", (f"app.{part}",)).status == "success"


def test_who_listens_is_notified_by_the_commit_that_decides(
    nodes: Cluster, db: shardman.Connection
) -> None:
    """PostgreSQL prepares no part that has notified."""
    a, b, c = (keys(nodes)[n] for n in (1, 2, 3))

    def heard() -> list[str]:
        return [n.payload for n in listener.notifies(timeout=0.3)]

    with psycopg.connect(bob(nodes, 2), autocommit=True) as listener:
        listener.execute("listen paid")
        pay(db, a, -1), pay(db, c, 1)
        db.execute("select pg_notify('paid', %s::text)", (1,))
        assert len(db.router.parts()) == 3
        assert heard() == []
        db.commit()
        assert heard() == ["1"]
        # Also where it comes first, on a node that has a part of its own, and in a block.
        with db.transaction():
            db.execute("notify paid, '2'")
            pay(db, c, -1), pay(db, b, 1)
            with db.transaction(force_rollback=True):
                db.execute("notify paid, 'not'")
        assert heard() == ["2"]
        with pytest.raises(psycopg.errors.CheckViolation), db.transaction():
            fail(pay(db, a, -1), db.execute("notify paid, 'not'"), pay(db, c, -100))
        pay(db, a, -1), pay(db, c, 1)
        db.execute("notify paid, 'not'")
        db.rollback()
        assert heard() == []
        # What is looked up as well is not for the node where it is sent.
        pay(db, a, 1), pay(db, c, 1)
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            db.execute("select pg_notify('paid', n::text) from acc")
        db.rollback()
    assert values(nodes, a, b, c) == [29, 31, 30]


DIES = """
import os, sys
import shardman
from shardman.client.transactions import Transactions

dsn, at, a, b = sys.argv[1:]

def dying(name):
    real = getattr(Transactions, name)
    def steps(self, *args):
        result = yield from real(self, *args)
        os._exit(0)
    setattr(Transactions, name, steps)

dying(at)
db = shardman.connect(dsn)
db.execute("update acc set n = n - 5 where id = %s", (int(a),))
db.execute("update acc set n = n + 5 where id = %s", (int(b),))
db.commit()
"""


def die(nodes: Cluster, at: str, a: int, b: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DIES, bob(nodes, 2), at, str(a), str(b)], check=True, timeout=60
    )
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("at", "left"), [("_first_part", 30), ("_prepare", 30), ("_decide", 25), ("_finish", 25)]
)
def test_a_client_that_dies(nodes: Cluster, db: shardman.Connection, at: str, left: int) -> None:
    a, b = (keys(nodes)[n] for n in (1, 3))
    die(nodes, at, a, b)
    eventually("nothing is prepared", lambda: prepared(nodes) == 0, seconds=10)
    assert values(nodes, a, b) == [left, 60 - left]


STOPS = """
import os, signal, sys
import shardman
from shardman.client.transactions import Transactions

dsn, at, *keys = sys.argv[1:]
real = getattr(Transactions, at)

def steps(self, nodes, *args):
    pid = self.sessions[nodes[-1]].info.backend_pid
    os.kill(pid, signal.SIGSTOP)
    print(pid, flush=True)
    return (yield from real(self, nodes, *args))

setattr(Transactions, at, steps)
db = shardman.connect(dsn)
for key, n in zip(keys, (-5, 2, 3)):
    db.execute("update acc set n = n + %s where id = %s", (n, int(key)))
db.commit()
"""


@pytest.mark.parametrize(
    ("at", "left"),
    [("_prepare", [30, 30, 30]), ("_finish", [25, 32, 33])],
    ids=["prepare", "commit"],
)
def test_a_client_that_is_killed_while_two_nodes_are_told_at_once(
    nodes: Cluster, db: shardman.Connection, at: str, left: list[int]
) -> None:
    """One node has done it. The other does what was sent to it when all has been decided without it."""
    ids = [keys(nodes)[n] for n in (1, 2, 3)]
    args = [sys.executable, "-c", STOPS, bob(nodes, 1), at, *map(str, ids)]
    with subprocess.Popen(args, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        pid = int(client.stdout.readline())
        try:
            done = int(at == "_prepare")
            eventually("one has done it", lambda: nodes.value(2, PARTS) == done, seconds=10)
            client.kill()
            client.wait()
            eventually("nothing is prepared", lambda: prepared(nodes) == 0, seconds=20)
        finally:
            client.kill()
            os.kill(pid, signal.SIGCONT)
    gone = "select not exists (select from pg_stat_activity where pid = %s)"
    eventually("it has done what it was told", lambda: nodes.value(3, gone, (pid,)), seconds=10)
    eventually("nothing is prepared", lambda: prepared(nodes) == 0, seconds=20)
    assert values(nodes, *ids) == left


@pytest.mark.parametrize(
    ("at", "left"),
    [("_prepare", [30, 30, 30]), ("_finish", [25, 32, 33])],
    ids=["prepare", "commit"],
)
def test_ctrl_c_while_two_nodes_are_told_at_once(
    nodes: Cluster, db: shardman.Connection, at: str, left: list[int]
) -> None:
    """Who catches it goes on with sessions on which nothing is under way any more."""
    ids = [keys(nodes)[n] for n in (1, 2, 3)]
    for id_, n in zip(ids, (-5, 2, 3), strict=True):
        pay(db, id_, n)
    pid = db.router.sessions[db.router.parts()[-1]].info.backend_pid
    real = getattr(db.router, at)
    main = threading.get_ident()
    goes_on = threading.Timer(1, os.kill, (pid, signal.SIGCONT))

    def steps(*args: Any) -> Any:
        os.kill(pid, signal.SIGSTOP)
        threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT)).start()
        goes_on.start()
        return (yield from real(*args))

    setattr(db.router, at, steps)
    with pytest.raises(KeyboardInterrupt):
        db.commit()
    delattr(db.router, at)
    assert not goes_on.is_alive()
    db.rollback()
    eventually("nothing is prepared", lambda: prepared(nodes) == 0, seconds=10)
    assert values(nodes, *ids) == left
    for id_ in ids:
        pay(db, id_, 1)
    db.commit()
    assert values(nodes, *ids) == [n + 1 for n in left]


def test_a_client_that_hangs_in_a_commit_is_ended(nodes: Cluster, db: shardman.Connection) -> None:
    """Whoever holds commits waits for what is being decided, and a client that is stopped never says it."""
    a, b = (keys(nodes)[n] for n in (1, 3))
    hangs = DIES.replace("os._exit(0)", "os.kill(os.getpid(), 19)")
    args = [sys.executable, "-c", hangs, bob(nodes, 1), "_prepare", str(a), str(b)]
    with subprocess.Popen(args, stderr=subprocess.PIPE, text=True) as client:
        try:
            eventually("a part is prepared", lambda: prepared(nodes) == 1, seconds=20)
            ends = "select shardman.end_sleepers(%s)"
            assert nodes.value(1, ends, ("1 min",)) == 0
            eventually("it is ended", lambda: nodes.value(1, ends, ("0.5 s",)) == 1, seconds=10)
            with shardman.hold_commits(nodes.lord_dsn):
                assert prepared(nodes) == 0
        finally:
            client.send_signal(signal.SIGCONT)
        assert "on all nodes or on none" in client.communicate(timeout=20)[1]
        assert client.returncode == 1
    assert values(nodes, a, b) == [30, 30]


def test_what_is_in_doubt_is_told(nodes: Cluster, db: shardman.Connection) -> None:
    a, b = (keys(nodes)[n] for n in (1, 3))
    nodes.stop_lord()
    die(nodes, "_decide", a, b)
    assert prepared(nodes) == 1
    # Who has not made it does not decide on it: a row of another role's says nothing.
    (gid,) = (r[0] for r in nodes.sql(3, "select gid from pg_prepared_xacts"))
    nodes.sql(1, "delete from shardman.client_transactions where gid = %s", (gid,))
    nodes.sql(
        1,
        "insert into shardman.client_transactions (gid, role, nodes) values (%s, 'mallory', '{}')",
        (gid,),
    )
    told = eventually(
        "status tells",
        lambda: [p for p in read(nodes.lord_dsn).problems if "prepared on node 3" in p.subject],
        seconds=30,
    )
    assert "wait for node 1" in told[0].what
    assert any("prepared on node 3" in f.subject for f in check(nodes.lord_dsn))
    nodes.start_lord()
    eventually("nothing is prepared", lambda: prepared(nodes) == 0, seconds=20)
    assert values(nodes, b) == [30]


def test_first_node_dies_while_it_decides(nodes: Cluster, db: shardman.Connection) -> None:
    a, b = (keys(nodes)[n] for n in (1, 3))
    with psycopg.connect(nodes.dsn(1), autocommit=True) as admin:
        pay(db, a, -5), pay(db, b, 5)
        pid = db.router.sessions[db.router.parts()[0]].info.backend_pid
        real = db.router._decide

        def decide(*args: Any) -> Any:
            admin.execute("select pg_terminate_backend(%s, 5000)", (pid,))
            return (yield from real(*args))

        db.router._decide = decide  # type: ignore[method-assign]
        with pytest.raises(psycopg.OperationalError, match="on all nodes or on none"):
            db.commit()
        del db.router._decide
    eventually("nothing is prepared", lambda: prepared(nodes) == 0, seconds=10)
    assert values(nodes, a, b) == [30, 30]
    pay(db, a, -5), pay(db, b, 5)
    db.commit()
    assert values(nodes, a, b) == [25, 35]


def test_many_at_once_and_asynchronous(nodes: Cluster, db: shardman.Connection) -> None:
    a, b, c = (keys(nodes)[n] for n in (1, 2, 3))

    async def work(src: int, dest: int) -> None:
        first, second = sorted((src, dest))

        async def once(db: shardman.AsyncConnection) -> None:
            await pay(db, first, 1 if first == dest else -1)
            await pay(db, second, 1 if second == dest else -1)

        async with await shardman.AsyncConnection.connect(bob(nodes, 1)) as db:
            for _ in range(20):
                await db.run(once)

    async def all_of_them() -> None:
        await asyncio.gather(work(a, b), work(b, c), work(c, a), work(b, a))

    asyncio.run(all_of_them())
    assert values(nodes, a, b, c) == [30 + 20, 30 - 20, 30]


def test_it_is_repeated_where_the_server_wants_it(nodes: Cluster, db: shardman.Connection) -> None:
    a, b = (keys(nodes)[n] for n in (1, 3))
    tries: list[int] = []

    def work(db: shardman.Connection, fails: int = 2) -> str:
        tries.append(1)
        pay(db, a, -1), pay(db, b, 1)
        if len(tries) <= fails:
            raise psycopg.errors.SerializationFailure
        return "done"

    assert db.run(work) == "done"
    assert values(nodes, a, b) == [29, 31]
    tries.clear()
    with pytest.raises(psycopg.errors.SerializationFailure) as failed:
        db.run(lambda db: work(db, 9), attempts=3)
    assert failed.value.__notes__ == ["shardman: tried 3 times"]
    assert len(tries) == 3
    with db.transaction(), pytest.raises(psycopg.ProgrammingError, match="end it before"):
        db.run(work)


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("block", [False, True])
def test_a_part_that_is_gone_is_not_begun_anew(
    nodes: Cluster, db: shardman.Connection, block: bool, many: bool
) -> None:
    """Whatever is sent next, and whether or not anybody looked at the error."""
    a, b = (keys(nodes)[n] for n in (1, 3))
    text = "update acc set n = n + 5 where id = %s"

    def send() -> None:
        if many:
            db.cursor().executemany(text, [(b,), (a,)])
        else:
            db.execute(text, (b,))

    def work() -> None:
        db.execute(text, (b,))
        pid = db.router.sessions[db.router.parts()[0]].info.backend_pid
        nodes.sql(3, "select pg_terminate_backend(%s, 5000)", (pid,))
        for _ in range(2):
            with pytest.raises(psycopg.OperationalError):
                send()
        if not block:
            db.commit()

    with pytest.raises(psycopg.OperationalError), db.transaction() if block else nullcontext():
        work()
    db.rollback()
    assert values(nodes, a, b) == [30, 30]


def test_its_outcome_is_forgotten_when_no_node_has_a_part(
    nodes: Cluster, db: shardman.Connection
) -> None:
    a, b = (keys(nodes)[n] for n in (1, 3))
    before = nodes.value(1, "select pg_current_snapshot()::text")
    pay(db, a, 1), pay(db, b, 1)
    db.commit()
    ((gid,),) = nodes.sql(
        1, "select gid from shardman.client_transactions order by at desc limit 1"
    )
    forget = "select shardman.forget_client_transactions(%s, %s::pg_snapshot, '0 s')"
    left = "select count(*) from shardman.client_transactions where gid = %s"
    now = nodes.value(1, "select pg_current_snapshot()::text")
    for prepared_, seen, count in (([gid], now, 1), ([], before, 1), ([], now, 0)):
        nodes.sql(1, forget, (prepared_, seen))
        assert nodes.value(1, left, (gid,)) == count


def test_a_transaction_is_one_part(nodes: Cluster) -> None:
    """Whoever may use one table could fill those of all nodes else, by one statement."""
    many = "select count(shardman.first_part(md5(i::text), '{2}')) from generate_series(1, 3) i"
    with psycopg.connect(bob(nodes, 1)) as conn:
        with pytest.raises(psycopg.errors.InvalidTransactionState, match="already"):
            conn.execute(many)  # type: ignore[arg-type]
        conn.rollback()
        first = "select shardman.first_part(%s, %s)"
        with pytest.raises(psycopg.errors.ProgramLimitExceeded):
            conn.execute(first, ("d" * 32, [2] * 1001))
        conn.rollback()
        with conn.transaction(force_rollback=True):
            conn.execute(first, ("d" * 32, [2]))
        (gid,) = conn.execute(first, ("d" * 32, [2])).fetchone()  # type: ignore[misc]
        with pytest.raises(psycopg.errors.InvalidTransactionState, match="already"):
            conn.execute("select shardman.other_part(%s)", (gid,))
        conn.rollback()
        (gid,) = conn.execute(first, ("d" * 32, [2])).fetchone()  # type: ignore[misc]
        for parts in (["1"] * 1001, ["x" * 129]):
            with pytest.raises(psycopg.errors.InvalidParameterValue), conn.transaction():
                conn.execute("select shardman.decide(%s, %s)", (gid, parts))
        conn.rollback()


def test_names_that_nobody_was_given(nodes: Cluster) -> None:
    """Who reads them takes them apart: one that cannot be would keep a node from forgetting any."""
    with psycopg.connect(bob(nodes, 1), autocommit=True) as conn:
        for name in ("a_b_y1_garbage", "a_b_y1_" + "9" * 30, "shardman_a_y²_7_" + "a" * 32, None):
            for call in ("other_part(%s)", "decide(%s, '{}')"):
                with pytest.raises(psycopg.errors.InvalidParameterValue):
                    conn.execute(f"select shardman.{call}", (name,))  # type: ignore[arg-type]
        # One that was given is of the transaction to which it was.
        (gid,) = conn.execute("select shardman.first_part(%s, '{2}')", ("c" * 32,)).fetchone()  # type: ignore[misc]
        with pytest.raises(psycopg.errors.InvalidTransactionState, match="not the first part"):
            conn.execute("select shardman.decide(%s, '{}')", (gid,))
    # Former versions have let them in.
    nodes.sql(
        1,
        "insert into shardman.client_decisions (gid, role, at) values ('a_b_y1_garbage', 'bob', '2000-01-01')",
    )
    nodes.sql(1, "select shardman.forget_client_transactions('{}', pg_current_snapshot(), '1 day')")
    assert nodes.value(1, "select count(*) from shardman.client_decisions where role = 'bob'") == 0
