"""DROP TABLE of a sharded table, on any node, is that of the cluster; one that is made again lies as it did."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest

from schema.bob import NODES, as_bob
from shardman.nodes.invariants import check
from shardman.pg.connection import SyncConnection
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

LONG = bool(os.environ.get("SHARDMAN_LONG"))
ROWS = 200
LAYOUT = "select expr, partitions_count, replevel from shardman.tables where relation = 'app.acc'"
PUT_AWAY = "select relname from pg_class where relnamespace = to_regnamespace('shardman_dropped')"
REMEMBERED = "select count(*) from shardman.layouts"


@pytest.fixture(scope="module")
def acc(cluster: Cluster) -> Cluster:
    """An ordinary role's table, with a replica of each partition and a foreign key to a shared one."""
    for node in NODES:
        cluster.sql(node, "create role bob login password 'b'; create schema app authorization bob")
    with as_bob(cluster, 1) as bob:
        bob.execute("create table kind (k int primary key)")
        bob.execute("insert into kind values (0), (1)")
        bob.execute(
            "create table acc (id int primary key, n serial, kind int default 0 references kind)"
        )
        bob.execute("insert into acc (id) select generate_series(1, %s)", (ROWS,))
    for command in (
        "select shardman.create_shared_table('app.kind', 1)",
        "select shardman.create_hash_partitions(1, 'app.acc', 'id', 4)",
        "select shardman.set_replevel('app.acc', 1)",
    ):
        assert cluster.cmd(command).status in ("success", "done")
    settled(cluster)
    return cluster


def settled(cluster: Cluster) -> None:
    eventually("all commands have ended", lambda: not cluster.commands_left(), seconds=90)
    assert check(cluster.lord_dsn, data=True, patience=30) == []
    for node in NODES:
        assert cluster.sql(node, PUT_AWAY) == []
        assert cluster.sql(node, "select * from shardman.renamed_tables") == []


def counts(cluster: Cluster, table: str = "app.acc") -> list[int]:
    query = f"select count(*) from {table}".encode()
    return [int(cluster.value(n, query)) for n in NODES]


def make(bob: SyncConnection, first: int = 1) -> None:
    """The table as a program makes it: its keys come last."""
    bob.execute("create table acc (id int, n serial, kind int default 0)")
    bob.execute(
        "insert into acc (id) select generate_series(%s::int, %s)", (first, first + ROWS - 1)
    )
    bob.execute("alter table acc add primary key (id)")
    bob.execute("alter table acc add foreign key (kind) references kind")


def test_what_is_rolled_back_has_not_happened(acc: Cluster) -> None:
    for node in (1, 2, 3):
        with as_bob(acc, node, autocommit=False) as bob:
            bob.execute("drop table acc")
            with pytest.raises(psycopg.errors.UndefinedTable), bob.transaction():
                bob.execute("select * from acc")
            # The names of its index and its sequence are free.
            bob.execute("create table acc (id int constraint acc_pkey primary key, n serial)")
            bob.execute("select nextval('acc_n_seq')")
            bob.rollback()
            bob.execute("savepoint here")
            bob.execute("drop table if exists acc cascade")
            bob.execute("rollback to here")
            bob.execute("update acc set kind = 1 where id = 7")
            bob.commit()
        assert counts(acc) == [ROWS] * 4
    assert acc.sql(0, LAYOUT) == [("id", 4, 1)]
    assert [acc.value(n, REMEMBERED) for n in NODES] == [0] * 4
    settled(acc)


def test_one_that_is_made_again_lies_as_it_did(acc: Cluster) -> None:
    """In one transaction and in several, while others read through another node."""
    stop = threading.Event()
    strange: list[object] = []

    def read() -> None:
        with as_bob(acc, 3) as bob:
            while not stop.is_set():
                try:
                    row = bob.execute("select count(*), count(distinct id) from acc").fetchone()
                    if row is None or row[0] != row[1] or row[0] not in (ROWS, 0):
                        strange.append(row)
                except psycopg.errors.UndefinedTable:
                    stop.wait(0.01)
                except psycopg.Error as error:
                    strange.append((error.sqlstate, str(error)))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with as_bob(acc, 2, autocommit=False) as bob:
            told: list[str] = []
            bob.add_notice_handler(lambda n: told.append(n.message_primary or ""))
            bob.execute("drop table acc")
            make(bob)
            bob.commit()
            assert any("app.acc is dropped on all nodes" in t for t in told), told
            assert any("app.acc will be sharded again" in t for t in told), told
        settled(acc)
        assert acc.sql(0, LAYOUT) == [("id", 4, 1)] and counts(acc) == [ROWS] * 4
        with as_bob(acc, 1) as bob:
            bob.execute("drop table acc")
            make(bob, 1000)
        settled(acc)
    finally:
        stop.set()
        reader.join()
    assert strange == []
    assert acc.sql(0, LAYOUT) == [("id", 4, 1)]
    assert [acc.value(n, "select min(id) from app.acc") for n in NODES] == [1000] * 4
    assert [acc.value(n, REMEMBERED) for n in NODES] == [0] * 4
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        acc.sql(3, "insert into app.acc (id, kind) values (1, 77)")
    for node in (1, 2, 3):
        acc.sql(node, "insert into app.acc (id) values (%s)", (node,))
    assert acc.value(2, "select count(distinct n) from app.acc") == ROWS + 3
    acc.sql(1, "delete from app.acc where id < 10")


def test_what_is_made_of_it(acc: Cluster) -> None:
    with as_bob(acc, 2) as bob:
        bob.execute("create view seen as select kind, count(*) from acc group by 1")
        bob.execute("create view twice as select * from seen")
        with pytest.raises(psycopg.errors.DependentObjectsStillExist, match="depend on it"):
            bob.execute("drop table acc")
        with pytest.raises(psycopg.errors.DependentObjectsStillExist, match="depend on it"):
            bob.execute("drop table acc restrict")
        with pytest.raises(psycopg.Error, match="refer"):
            bob.execute("drop table kind")
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="this node only"):
            bob.execute("do $$ begin drop table app.acc cascade; perform 1; end $$")
        assert counts(acc) == [ROWS] * 4
        bob.execute("drop table acc cascade")
        bob.execute("drop table if exists acc")
    for node in (1, 2, 3):
        assert acc.value(node, "select to_regclass('app.acc')") is None
        assert acc.value(node, "select to_regclass('app.twice')") is None
    with as_bob(acc, 3) as bob:
        make(bob)
    settled(acc)
    assert acc.sql(0, LAYOUT) == [("id", 4, 1)] and counts(acc) == [ROWS] * 4
    with pytest.raises(psycopg.errors.InsufficientPrivilege), acc.connect(2) as conn:
        conn.execute("create role eve; set role eve; drop table app.acc")


def test_all_at_once(acc: Cluster) -> None:
    """Also the shared one to which it refers, and one that is plain, by one statement."""
    with as_bob(acc, 2) as bob:
        bob.execute("create table plain (id int)")
        bob.execute("drop table acc, plain, kind")
        assert bob.execute("select to_regclass('plain')").fetchone() == (None,)
        bob.execute("create table kind (k int)")
        make_without_key = "create table acc (id int primary key, n serial, kind int default 0)"
        bob.execute(make_without_key)
        bob.execute("insert into kind values (0), (1)")
        bob.execute("alter table kind add primary key (k)")
        bob.execute("insert into acc (id) select generate_series(1, %s)", (ROWS,))
        bob.execute("alter table acc add foreign key (kind) references kind (k)")
    settled(acc)
    assert acc.sql(0, LAYOUT) == [("id", 4, 1)] and counts(acc) == [ROWS] * 4
    assert [acc.value(n, "select count(*) from app.kind") for n in (1, 2, 3)] == [2] * 3


def test_while_its_partitions_move_and_the_shardlord_dies(acc: Cluster) -> None:
    owner = "select owner from shardman.partitions where part_name = 'app.acc_0' and prv is null"
    source = acc.value(0, owner)
    copies = "select owner from shardman.partitions where part_name = 'app.acc_0'"
    (dest,) = {1, 2, 3} - {row[0] for row in acc.sql(0, copies)}
    acc.submit("select shardman.move_part('app.acc_0', %s)", (dest,))
    with as_bob(acc, source) as bob:
        bob.execute("drop table acc")
        bob.execute("create table acc (id int, n serial, kind int default 0)")
        bob.execute("insert into acc (id) select generate_series(1, %s)", (ROWS,))
        acc.stop_lord(kill=True)
        bob.execute("alter table acc add primary key (id)")
        acc.start_lord()
        bob.execute("alter table acc add foreign key (kind) references kind")
    settled(acc)
    assert acc.sql(0, LAYOUT) == [("id", 4, 1)] and counts(acc) == [ROWS] * 4


#: The sender's part is the last to be committed. A node's part waits at its COMMIT for a while.
HOLD = """
set shardman.ddl = 'here';
create schema trap;
grant usage on schema trap to public;
create table trap.caught ();
grant insert on trap.caught to public;
create function trap.hold() returns trigger language plpgsql as 'begin perform pg_sleep(3); return null; end';
create constraint trigger hold after insert on trap.caught
    deferrable initially deferred for each row execute function trap.hold();
create function trap.catch() returns event_trigger language plpgsql as
    'begin insert into trap.caught default values; end';
create event trigger a_trap on ddl_command_end when tag in ('ALTER TABLE') execute function trap.catch();
"""
NO_HOLD = "set shardman.ddl = 'here'; drop event trigger a_trap; drop schema trap cascade"
HELD = "select pid from pg_stat_activity where wait_event = 'PgSleep'"
SENDER = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'bob' and state = 'active'"
THERE = "select to_regclass('app.acc') is not null"


@contextmanager
def holding(cluster: Cluster, node: int) -> Iterator[None]:
    cluster.sql(node, HOLD)
    try:
        yield
    finally:
        cluster.sql(node, NO_HOLD)


@pytest.mark.parametrize("held", (0, 3) if LONG else (3,))
@pytest.mark.parametrize(
    "killed", ("session", "sender", "held", "shardlord") if LONG else ("session",)
)
def test_who_dies_between_the_nodes_commits(acc: Cluster, killed: str, held: int) -> None:
    """It ends by itself: the table is gone everywhere, or nowhere and whole."""
    victim = {"sender": 1, "held": held}.get(killed)
    with holding(acc, held), ThreadPoolExecutor(1) as pool, as_bob(acc, 1) as bob:
        sent = pool.submit(bob.execute, "drop table acc")
        eventually("its part is being committed", lambda: acc.sql(held, HELD), seconds=30)
        if victim is not None:
            acc.kill_node(victim)
        elif killed == "session":
            acc.sql(1, SENDER)
        else:
            acc.stop_lord(kill=True)
        told = sent.exception()
        if victim is not None:
            acc.start_node(victim)
        elif killed == "shardlord":
            acc.start_lord()
    assert (told is None) == (killed == "shardlord"), told
    ends = (True, []), (False, [])
    eventually(
        "it is gone everywhere or nowhere",
        lambda: [(acc.value(n, THERE), acc.sql(n, PUT_AWAY)) for n in NODES],
        until=lambda found: found in ([e] * 4 for e in ends),
        seconds=60,
        tolerate=psycopg.Error,
    )
    settled(acc)
    if acc.value(1, THERE):
        assert counts(acc) == [ROWS] * 4
        return
    assert acc.sql(0, LAYOUT) == []
    with as_bob(acc, 2) as bob:
        make(bob)
    settled(acc)
    assert acc.sql(0, LAYOUT) == [("id", 4, 1)] and counts(acc) == [ROWS] * 4


def test_one_that_lacks_its_keys_is_taken_as_it_is(acc: Cluster) -> None:
    with as_bob(acc, 3) as bob:
        bob.execute("drop table acc")
        bob.execute("create table acc (id bigint, t text)")
        bob.execute("insert into acc select i, 'x' from generate_series(1, %s) i", (ROWS,))
    settled(acc)
    assert acc.sql(0, LAYOUT) == [("id", 4, 1)] and counts(acc) == [ROWS] * 4


def test_one_that_cannot_lie_so_stays_plain_and_status_says_why(acc: Cluster) -> None:
    with as_bob(acc, 2) as bob:
        bob.execute("drop table acc")
        bob.execute("create table acc (other int primary key)")
        eventually("it was tried", lambda: not acc.commands_left(), seconds=60)
        (problem,) = acc.sql(
            2, "select problem, hint from shardman.status_problems where subject = 'app.acc'"
        )
        assert "has stayed plain" in problem[0] and "restore_layout('app.acc', 2)" in problem[1]
        bob.execute("alter table acc rename other to id")
    assert acc.cmd("select shardman.restore_layout('app.acc', 2)").status == "success"
    settled(acc)
    assert counts(acc) == [0] * 4


def test_what_is_forgotten_is_plain(acc: Cluster) -> None:
    acc.sql(2, "drop table app.acc")
    settled(acc)
    assert acc.cmd("select shardman.forget_layout('app.acc')").status == "success"
    acc.sql(2, "create table app.acc (id int primary key)")
    settled(acc)
    assert acc.sql(0, LAYOUT) == []
    assert (
        acc.cmd("select shardman.create_hash_partitions(2, 'app.acc', 'id', 4)").status == "success"
    )
    acc.sql(0, "insert into shardman.settings values ('remember_layouts', '0')")
    eventually(
        "nodes know", lambda: acc.value(3, "select shardman.remembers() = interval '0'") is True
    )
    acc.sql(3, "drop table app.acc")
    acc.sql(3, "create table app.acc (id int primary key)")
    settled(acc)
    assert acc.sql(0, LAYOUT) == []
    # Dropped by the command: nothing is remembered.
    acc.sql(0, "delete from shardman.settings where name = 'remember_layouts'")
    assert (
        acc.cmd("select shardman.create_hash_partitions(3, 'app.acc', 'id', 4)").status == "success"
    )
    assert acc.cmd("select shardman.drop_table('app.acc')").status == "success"
    acc.sql(1, "create table app.acc (id int primary key)")
    settled(acc)
    assert acc.sql(0, LAYOUT) == []
