"""One picture of all nodes: transfers between them are never seen half."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

import shardman
from schema.bob import move_in
from shardman.client.routing.torn import lagging
from shardman.testing import eventually
from shardman.testing.cluster import Cluster

IDS = 12


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Cluster:
    schema = """
    create table acc (id int primary key, n int not null);
    insert into acc select i, 30 from generate_series(1, 60) i;
    """
    move_in(
        cluster, schema, ["select shardman.create_hash_partitions(1, 'app.acc', 'id', 6)"], "acc"
    )
    usage = "select has_schema_privilege('bob', 'shardman', 'usage')"
    eventually("bob is let in", lambda: all(cluster.value(n, usage) for n in (0, 1, 2, 3)))
    return cluster


def bob(cluster: Cluster, node: int, **more: str) -> str:
    return psycopg.conninfo.make_conninfo(
        cluster.dsn(node), user="bob", password="b", options="-c search_path=app", **more
    )


@contextmanager
def transfers(cluster: Cluster, clients: int) -> Iterator[list[int]]:
    """Several clients that pay from one account to another; how often each has."""
    ends = threading.Event()
    done = [0] * clients

    def pay(db: shardman.Connection) -> None:
        for id_, n in sorted(zip(random.sample(range(1, IDS + 1), 2), (1, -1), strict=True)):
            db.execute("update acc set n = n + %s where id = %s", (n, id_))

    def work(i: int) -> None:
        with shardman.connect(bob(cluster, 1 + i % 3)) as db:
            while not ends.is_set():
                db.run(pay, attempts=None)
                done[i] += 1

    with ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(work, i) for i in range(clients)]
        try:
            yield done
        finally:
            ends.set()
            for each in running:
                each.result(30)


def total(db: Any) -> int:
    rows = (db.execute("select n from acc where id = %s", (i,)) for i in range(1, IDS + 1))
    return sum(row.fetchone()[0] for row in rows)


def test_nothing_is_seen_half(nodes: Cluster) -> None:
    torn = {True: 0, False: 0}
    with transfers(nodes, 3) as done, shardman.connect(bob(nodes, 2)) as db:
        begun = time.monotonic()
        looks = 0
        while looks < 100 or (torn[False] == 0 and time.monotonic() < begun + 60):
            with db.snapshot():
                torn[True] += total(db) != 30 * IDS
            # The same with the snapshot that each node has at the first statement there.
            with db.transaction():
                torn[False] += total(db) != 30 * IDS
            looks += 1
    assert torn[True] == 0
    # So there was something to be seen.
    assert torn[False] > 0 and sum(done) > looks


def test_the_asynchronous_one(nodes: Cluster) -> None:
    async def look() -> list[int]:
        async with await shardman.AsyncConnection.connect(bob(nodes, 3)) as db:
            found = []
            for _ in range(30):
                async with db.snapshot():
                    n = 0
                    for i in range(1, IDS + 1):
                        row = await db.execute("select n from acc where id = %s", (i,))
                        n += (await row.fetchone())[0]
                found.append(n)
            return found

    with transfers(nodes, 2):
        assert {*asyncio.run(look())} == {30 * IDS}


def keys(cluster: Cluster) -> dict[int, int]:
    """A key on each node."""
    one_of_each = """
    select p.node, min(i) from generate_series(%s::int, 60) i
     cross join lateral shardman.partition_of('app.acc', i) p group by p.node
    """
    return dict(cluster.sql(1, one_of_each, (IDS + 1,)))


def look(db: shardman.Connection) -> None:
    with db.snapshot(patience_s=0.3):
        total(db)


def test_what_is_decided_and_not_ended_is_waited_for(nodes: Cluster) -> None:
    """A client dies between the phases: as long as a part stays prepared, there is no picture."""
    a, b = keys(nodes)[1], keys(nodes)[2]
    nodes.stop_lord(kill=True)
    try:
        with shardman.connect(bob(nodes, 1)) as db, shardman.connect(bob(nodes, 3)) as reader:
            for id_, n in ((a, -1), (b, 1)):
                db.execute("update acc set n = n + %s where id = %s", (n, id_))
            db.router._finish = lambda *_args: iter(())  # type: ignore[assignment, method-assign]
            db.commit()
            with pytest.raises(
                psycopg.errors.SerializationFailure, match="not committed on node 2"
            ):
                look(reader)
            (gid,) = nodes.sql(2, "select gid from pg_prepared_xacts")[0]
            nodes.connect(2, user="bob", password="b").execute(f"commit prepared '{gid}'".encode())
            with reader.snapshot(patience_s=0.3):
                read = [reader.execute("select n from acc where id = %s", (i,)) for i in (a, b)]
                assert [r.fetchone() for r in read] == [(29,), (31,)]
    finally:
        nodes.start_lord()


def test_it_only_reads_and_is_a_transaction_of_its_own(nodes: Cluster) -> None:
    with shardman.connect(bob(nodes, 1)) as db:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), db.snapshot():
            db.execute("update acc set n = 0 where id = 1")
        db.execute("select n from acc where id = 1")
        with pytest.raises(psycopg.ProgrammingError, match="of its own"), db.snapshot():
            pass
        db.rollback()
        db.execute("set work_mem = '4MB'")
        db.commit()
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="read as one"), db.snapshot():
            pass


def test_strangers_names_hold_nobody_up(nodes: Cluster) -> None:
    """Everybody may write down a name of a transaction that there is not."""
    ends = threading.Event()

    def lie() -> None:
        with psycopg.connect(bob(nodes, 2), autocommit=True) as conn:
            cluster = conn.execute("select shardman.first_part(%s, '{}')", ("0" * 32,)).fetchone()
            assert cluster is not None
            name = cluster[0].split("_")[1]
            n = 0
            while not ends.is_set():
                n += 1
                gid = f"shardman_{name}_x1_{n}_{'0' * 32}"
                conn.execute("select shardman.other_part(%s)", (gid,))
                conn.execute("select shardman.first_part(%s, '{1,3}')", (f"{n:032x}",))

    with ThreadPoolExecutor(1) as pool:
        lying = pool.submit(lie)
        try:
            with shardman.connect(bob(nodes, 3)) as db:
                for _ in range(20):
                    with db.snapshot(patience_s=2):
                        assert total(db) == 30 * IDS
        finally:
            ends.set()
            lying.result(10)


def test_partitions_move(nodes: Cluster) -> None:
    """A move waits for who reads; who believes it where it was is told so."""
    a = keys(nodes)[1]
    part = nodes.value(1, "select partition from shardman.partition_of('app.acc', %s)", (a,))
    move = "select shardman.move_part(%s, %s)"
    with shardman.connect(bob(nodes, 3), refresh_seconds=60) as db:
        with db.snapshot():
            before = total(db)
            command = nodes.submit(move, (part, 2))
            begun = "select status <> 'waiting' from shardman.cmd_log where id = %s"
            eventually("it has begun", lambda: nodes.value(0, begun, (command,)))
            assert total(db) == before == 30 * IDS
        assert nodes.wait(command).status == "success"

        def look() -> None:
            with db.snapshot():
                db.execute("select n from acc where id = %s", (a,))

        with pytest.raises(psycopg.errors.SerializationFailure, match="has moved"):
            look()
        look()


def test_commits_are_held(nodes: Cluster) -> None:
    """Nobody's is half done then; what is on one node goes on."""
    ids = tuple(keys(nodes)[n] for n in (2, 3))
    halves = "select count(*) from pg_prepared_xacts where gid like 'shardman%%'"
    with transfers(nodes, 2) as done, shardman.connect(bob(nodes, 2)) as db:
        for _ in range(3):
            with shardman.hold_commits(nodes.lord_dsn):
                assert sum(nodes.value(n, halves) for n in (1, 2, 3)) == 0
                before = sum(done)
                db.execute("update acc set n = n where id = %s", ids[:1])
                db.commit()
                # Each may have been between its commit and its count.
                assert sum(done) <= before + 2
            eventually("they go on", lambda before=before: sum(done) > before + 2)
        made = nodes.cmd("select shardman.create_restore_point('before Tuesday''s')")
        assert made.status == "success" and made.result, made
        assert all(f"Node {n}: " in made.result for n in (0, 1, 2, 3))
    refused = nodes.cmd("select shardman.create_restore_point(%s)", ("ä" * 32,))
    assert refused.error is not None and "1 to 63 bytes" in refused.error


@contextmanager
def waits(db: shardman.Connection, *pair: int) -> Iterator[None]:
    """A transfer that does not end within the block, and ends behind it."""

    def pay(db: shardman.Connection) -> None:
        for id_, n in zip(pair, (-1, 1), strict=True):
            db.execute("update acc set n = n + %s where id = %s", (n, id_))

    with ThreadPoolExecutor() as pool:
        paid = pool.submit(db.run, pay)
        time.sleep(0.5)
        assert not paid.done()
        yield
        paid.result(timeout=30)


def test_a_session_holds_them_until_it_says_otherwise_or_is_gone(nodes: Cluster) -> None:
    a, b = keys(nodes)[1], keys(nodes)[2]
    hold, release = "select shardman.hold_commits()", "select shardman.release_commits()"
    with shardman.connect(bob(nodes, 1)) as db:
        for node in (0, 3):
            with nodes.connect(node) as holder:
                holder.execute(hold)
                with pytest.raises(psycopg.errors.ObjectInUse, match="already"):
                    holder.execute(hold)
                with waits(db, a, b):
                    holder.execute(release)
                with pytest.raises(psycopg.Error, match="holds no commits"):
                    holder.execute(release)
                # In one transaction, too.
                with holder.transaction():
                    holder.execute(hold)
                    with waits(db, a, b):
                        holder.execute(release)
                holder.execute(hold)
                with waits(db, a, b):
                    holder.close()
        with nodes.connect(2) as holder, holder.transaction():
            holder.execute("set transaction isolation level repeatable read")
            with pytest.raises(psycopg.Error, match="READ COMMITTED only"):
                holder.execute(hold)
        with (
            pytest.raises(shardman.UserError, match="permission denied"),
            shardman.hold_commits(bob(nodes, 2)),
        ):
            pass


def test_status_tells_that_they_are_held(nodes: Cluster) -> None:
    told = (
        "select problem from shardman.status_problems where subject like 'commits of transactions%'"
    )
    with shardman.hold_commits(nodes.dsn(3)):
        assert nodes.sql(3, told) == []
        eventually("it is told", lambda: nodes.sql(3, told), seconds=20)
    assert nodes.sql(3, told) == []


def test_who_holds_commits_does_not_do_so_for_ever(nodes: Cluster) -> None:
    a, b = keys(nodes)[1], keys(nodes)[2]

    def hold() -> None:
        with shardman.hold_commits(nodes.dsn(3)):
            with waits(db, a, b):
                pass
            time.sleep(1.5)

    nodes.sql(0, "insert into shardman.settings values ('hold_commits_for', '1')")
    try:
        with (
            shardman.connect(bob(nodes, 1)) as db,
            pytest.raises(shardman.UserError, match="held for 1 seconds"),
        ):
            hold()
    finally:
        nodes.sql(0, "delete from shardman.settings where name = 'hold_commits_for'")


def test_who_stays_in_a_commit_is_named(nodes: Cluster) -> None:
    with psycopg.connect(bob(nodes, 2)) as conn:
        conn.execute("select shardman.first_part(%s, '{1}')", ("1" * 32,))
        named = rf"node 2 came to no end: bob \(process {conn.info.backend_pid}\)"
        with pytest.raises(shardman.UserError, match=named), shardman.hold_commits(nodes.dsn(3)):
            pass
        # Who is not heard of for a minute is ended.
        assert nodes.value(2, "select shardman.end_sleepers('1 min')") == 0
        assert nodes.value(2, "select shardman.end_sleepers('1 s')") == 1
        with shardman.hold_commits(nodes.dsn(3)), pytest.raises(psycopg.OperationalError):
            conn.execute("select 1")


ENDS = """
select pg_terminate_backend(pid) from pg_locks
 where relation = 'shardman.commit_gate'::regclass and mode = 'ExclusiveLock'
"""


def test_who_holds_them_loses_his_shardlord_or_a_node(nodes: Cluster) -> None:
    a, b = keys(nodes)[1], keys(nodes)[2]

    def lose_the_shardlord() -> None:
        with shardman.hold_commits(nodes.dsn(3)), waits(db, a, b):
            nodes.stop_lord(kill=True)
            nodes.start_lord()

    def lose_a_node() -> None:
        with shardman.hold_commits(nodes.dsn(3)):
            nodes.sql(2, ENDS)

    with shardman.connect(bob(nodes, 1)) as db:
        with pytest.raises(shardman.UserError, match="another shardlord acts"):
            lose_the_shardlord()
        with pytest.raises(shardman.UserError, match="node 2 cannot be reached"):
            lose_a_node()


def test_the_program_holds_them(nodes: Cluster) -> None:
    program = [sys.executable, "-m", "shardman"]
    held = [*program, "hold-commits", "--dsn", nodes.lord_dsn, "--", "sh", "-c", "exit 7"]
    assert subprocess.run(held, check=False).returncode == 7


def test_who_lags_behind() -> None:
    gid = "shardman_abcdef_x1_77_" + "0" * 32
    assert lagging({1: {gid: [2, 3]}, 2: {gid: []}, 3: {}}) == {3: {gid}}
    assert lagging({1: {}, 2: {gid: []}, 3: {}}) == {1: {gid}}
    assert lagging({1: {gid: [2, 9]}, 2: {gid: []}}) == {}
    assert lagging({1: {gid: [2]}, 2: {}}, {gid}) == {}
    assert lagging({2: {gid: []}, 3: {}}) == {}
    for nonsense in ("nonsense", "shardman_abcdef_x²_77_0", "shardman_abcdef_x_77_0"):
        assert lagging({2: {nonsense: []}, 3: {}}) == {}
