"""ALTER TABLE ... RENAME TO and SET SCHEMA, as migration tools send them, of sharded and of shared tables."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest

from schema.bob import NODES, WORKERS, as_bob, move_in, ok, send, value
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.load import REPEATED_IN_CIRCLES
from shardman.testing.waiting import eventually

SCHEMA = """
create table "Land" (n serial primary key, code text unique, name text);
insert into "Land" (code, name) select 'c' || i, 'n' || i from generate_series(0, 9) i;
create table city (id int generated always as identity primary key, land text references "Land" (code));
insert into city (land) select 'c' || i from generate_series(0, 9) i;
create table acc (id int primary key, v int default 0, n bigserial, land text);
create table kept (id int primary key);
create table refers (id int primary key, kept int references kept (id));
insert into acc (id, v, land) select i, i, 'c' || i % 10 from generate_series(1, 60) i;
"""


@pytest.fixture(scope="module")
def acc(cluster: Cluster) -> Cluster:
    """Bob's table, with replicas, and shared ones, of which others refer to two."""
    commands = (
        "select shardman.create_shared_table('app.\"Land\"', 1)",
        "select shardman.create_shared_table('app.city', 1)",
        "select shardman.create_hash_partitions(1, 'app.acc', 'id', 4)",
        "select shardman.set_replevel('app.acc', 1)",
        "select shardman.create_shared_table('app.kept', 1)",
        "select shardman.create_hash_partitions(1, 'app.refers', 'id', 2)",
    )
    move_in(cluster, SCHEMA, commands, "acc")
    cluster.sql(1, 'create schema "Else" authorization bob')
    return cluster


def settled(cluster: Cluster, *, data: bool = False) -> None:
    """The metadata have followed, on every node, and nothing is left of former names."""
    eventually("what was submitted has ended", lambda: not cluster.commands_left())
    failed = "select cmd_type, error from shardman.cmd_log where status = 'failed'"
    assert cluster.sql(0, failed) == []
    assert check(cluster.lord_dsn, data=data, patience=30) == []
    for node in NODES:
        cluster.sql(node, "select shardman.reconcile()")
        assert cluster.sql(node, "select * from shardman.renamed_tables") == []


@contextmanager
def writers(cluster: Cluster, table: list[str], change: str) -> Iterator[list[int]]:
    """One on each node, who changes a row all the time by the name that the table has; how often."""
    stop = threading.Event()
    written, missed = [0, 0, 0], [0, 0, 0]

    def write(node: int) -> None:
        with as_bob(cluster, node) as bob:
            # With a pause, for a moment in which nobody writes.
            while not stop.wait(0.1):
                try:
                    bob.execute(change.format(table[-1], node).encode())
                    written[node - 1] += 1
                except psycopg.errors.UndefinedTable:
                    # By the name that it had when the statement was written.
                    missed[node - 1] += 1
                except REPEATED_IN_CIRCLES:
                    pass

    with ThreadPoolExecutor() as pool:
        at_work = [pool.submit(write, node) for node in WORKERS]
        try:
            yield written
            for n in range(3):
                eventually("each writes", lambda n=n, was=written[n]: written[n] > was)
        finally:
            stop.set()
        for each in at_work:
            each.result()


def test_shared_tables(acc: Cluster) -> None:
    """Read and written at once, on every node, within the transaction and behind it."""
    with as_bob(acc, 2, autocommit=False) as bob:
        bob.execute('alter table "Land" rename to country')
        bob.execute("insert into country (code, name) values ('new', 'x')")
        bob.execute("savepoint s")
        bob.execute("alter table country rename to x")
        bob.execute("insert into x (code, name) values ('newer', 'x')")
        bob.execute("rollback to s")
        bob.execute("alter table country add column late int default 7")
        bob.commit()
    for node in WORKERS:
        send(acc, node, f"insert into country (code, name) values ('at {node}', 'x')")
        send(acc, node, f"insert into city (land) values ('at {node}')")
        assert value(acc, node, "select sum(late) from country") == 7 * (11 + node)
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            send(acc, node, "delete from country where code = 'c1'")
        with pytest.raises(psycopg.errors.UndefinedTable):
            value(acc, node, 'select * from "Land"')
    settled(acc)
    send(acc, 1, "insert into acc (id, land) values (1000, 'at 3')")
    assert acc.sql(0, "select relation from shardman.shared_tables order by 1") == [
        ("app.city",),
        ("app.country",),
        ("app.kept",),
    ]


def test_a_shared_table_to_which_a_sharded_one_refers(acc: Cluster) -> None:
    """Its foreign keys hold under each name, and its partitions move before and while the metadata follow."""
    owner = "select owner from shardman.partitions where part_name = 'app.refers_0'"
    called, more = "kept", 0
    for node, change, name in (
        (1, "alter table kept rename to other", "other"),
        (2, 'alter table other set schema "Else"', '"Else".other'),
        (3, 'alter table "Else".other set schema app', "other"),
        (1, None, "kept"),
        (2, 'alter table kept rename to "A ""b"""', '"A ""b"""'),
        (3, 'alter table "A ""b""" rename to kept', "kept"),
    ):
        dest = 1 + acc.value(0, owner) % 3
        if change is None:
            ok(acc, "select shardman.rename_table('app.other', 'app.kept')")
            moved = acc.submit("select shardman.move_part('app.refers_0', %s)", (dest,))
        else:
            with as_bob(acc, node, autocommit=False) as bob:
                bob.execute(change.encode())
                bob.execute(f"insert into {name} values ({more})".encode())
                bob.commit()
            moved = acc.submit("select shardman.move_part('app.refers_0', %s)", (dest,))
        if change is None:
            send(acc, 2, f"insert into {name} values ({more})")
        called = name
        for at in WORKERS:
            more += 1
            send(acc, at, f"insert into {called} values ({more})")
            send(acc, at, f"insert into refers values ({more}, {more})")
            with pytest.raises(psycopg.errors.ForeignKeyViolation):
                send(acc, at, f"insert into refers values ({more + 1000}, {more + 1000})")
            with pytest.raises(psycopg.errors.ForeignKeyViolation):
                send(acc, at, f"delete from {called} where id = {more}")
        assert acc.wait(moved).status == "success", acc.wait(moved)
        settled(acc)
        more += 1
    assert value(acc, 3, "select count(*) from refers") == 18


def test_a_shared_table_while_it_is_written(acc: Cluster) -> None:
    called = ["country"]
    change = "update {} set late = late + 1 where code = 'c{}'"
    before = int(str(value(acc, 1, "select sum(late) from country")))
    with writers(acc, called, change) as written:
        for node, sql, name in (
            (1, 'alter table country rename to "A ""b"""', '"A ""b"""'),
            (3, 'alter table "A ""b""" set schema "Else"', '"Else"."A ""b"""'),
        ):
            send(acc, node, sql)
            called.append(name)
        ok(acc, 'select shardman.rename_table(\'"Else"."A ""b"""\', \'"Else".c\')')
        called.append('"Else".c')
    for node in WORKERS:
        assert value(acc, node, 'select sum(late) from "Else".c') == before + sum(written)
    settled(acc)
    for node in WORKERS:
        send(acc, node, 'insert into "Else".c (code) values (md5(random()::text))')
    settled(acc)


def test_a_shared_table_is_called_as_before(acc: Cluster) -> None:
    """Rolled back, or there and back again; another table gets the name and gives it back."""
    with as_bob(acc, 3, autocommit=False) as bob:
        bob.execute("alter table city rename to town")
        bob.rollback()
    with as_bob(acc, 3, autocommit=False) as bob:
        bob.execute("alter table city rename to town")
        bob.execute("alter table town rename to city")
        bob.commit()
    settled(acc)
    with as_bob(acc, 2, autocommit=False) as bob:
        bob.execute("alter table city rename to town")
        bob.execute("create table city (id int primary key)")
        bob.execute("insert into city values (1)")
        bob.commit()
    for node in WORKERS:
        assert value(acc, node, "select count(*) from town") == 13
        assert value(acc, node, "select to_regclass('city') is null") == (node != 2)
    send(acc, 2, "alter table city add column v int", "insert into city values (2)")
    settled(acc)
    ok(acc, "select shardman.create_shared_table('app.city', 2)")
    for node in WORKERS:
        send(
            acc,
            node,
            f"insert into city values (10 + {node})",
            "insert into town (land) values ('c1')",
        )
    assert value(acc, 3, "select count(*) from city") == 5
    settled(acc, data=True)


def test_what_a_shared_table_cannot_be_called(acc: Cluster) -> None:
    acc.sql(3, "create function app.taken_shared() returns trigger language plpgsql as 'begin end'")
    for statement, error, said in (
        ("alter table town rename to acc", psycopg.errors.DuplicateTable, "already exists"),
        (
            "alter table town rename to taken",
            psycopg.errors.DuplicateTable,
            "function app.taken_shared",
        ),
        ("alter table town set schema nowhere", psycopg.errors.InvalidSchemaName, "nowhere"),
        (
            "do 'begin alter table town rename to x; end'",
            psycopg.errors.FeatureNotSupported,
            "by itself",
        ),
    ):
        with pytest.raises(error, match=said):
            send(acc, 1, statement)
    done = acc.cmd("select shardman.rename_table('app.town', 'app.taken')")
    assert done.status == "failed"
    assert "taken_shared" in (done.error or "")
    # So that `settled` finds only what was not meant to.
    acc.sql(0, "delete from shardman.cmd_log where status = 'failed'")
    for node in WORKERS:
        assert value(acc, node, "select count(*) from town") == 16


def moved(cluster: Cluster, table: str) -> None:
    """Moves a partition of a table to the node without a copy of it."""
    part = cluster.value(
        0, "select min(part_name) from shardman.partitions where relation = %s", (table,)
    )
    copies = cluster.sql(0, "select owner from shardman.partitions where part_name = %s", (part,))
    dest = next(n for n in WORKERS if (n,) not in copies)
    ok(cluster, "select shardman.move_part(%s, %s)", part, dest)


def test_a_sharded_table(acc: Cluster) -> None:
    """In a transaction with what a migration does before and behind it, and at once on every node."""
    send(acc, 3, "create view seen as select id, v from acc")
    before = int(str(value(acc, 1, "select count(*) from acc")))
    with as_bob(acc, 2, autocommit=False) as bob:
        bob.execute('alter table acc rename to "B b"')
        bob.execute("savepoint s")
        bob.execute('alter table "B b" rename to x')
        bob.execute("rollback to s")
        bob.execute('alter table "B b" add column late int default 7')
        bob.execute('update "B b" set v = -1 where id <= 3')
        bob.execute("create table acc (id int primary key)")
        bob.execute("insert into acc values (1)")
        bob.commit()
    for node in NODES:
        assert value(acc, node, 'select count(*) from "B b"') == before + node
        assert value(acc, node, "select sum(v) from seen where id <= 3") == -3
        if node != 2:
            with pytest.raises(psycopg.errors.UndefinedTable):
                value(acc, node, "select count(*) from acc")
        send(acc, node, f'insert into "B b" (id) values ({2000 + node})')
    assert value(acc, 2, "select count(*) from acc") == 1
    send(acc, 1, 'create index on "B b" (late)')
    settled(acc)
    ok(acc, "select shardman.create_hash_partitions(2, 'app.acc', 'id', 4)")
    moved(acc, 'app."B b"')
    settled(acc)


def test_a_sharded_table_goes_to_another_schema_and_comes_back(acc: Cluster) -> None:
    before = int(str(value(acc, 1, 'select count(*) from "B b"')))
    with as_bob(acc, 3, autocommit=False) as bob:
        bob.execute('alter table "B b" rename to b')
        bob.execute('alter table b set schema "Else"')
        bob.execute('insert into "Else".b (id) values (3000)')
        bob.commit()
    for node in NODES:
        send(acc, node, f'insert into "Else".b (id) values ({3001 + node})')
        assert value(acc, node, 'select count(distinct n) from "Else".b') == before + 2 + node
    settled(acc)
    for former, later in (("b", "later"), ("later", "b")):
        send(acc, 1, f'alter table "Else".{former} rename to {later}')
    settled(acc)
    with as_bob(acc, 1, autocommit=False) as bob:
        bob.execute('alter table "Else".b rename to later')
        bob.execute('alter table "Else".later rename to b')
        bob.commit()
    settled(acc)
    moved(acc, '"Else".b')
    settled(acc)


def test_a_sharded_table_while_it_is_used(acc: Cluster) -> None:
    called = ['"Else".b']
    before = int(str(value(acc, 1, 'select sum(v) from "Else".b')))
    with writers(acc, called, "update {} set v = v + 1 where id = {}") as written:
        send(acc, 2, 'alter table "Else".b set schema app')
        called.append("app.b")
    for node in NODES:
        assert value(acc, node, "select sum(v) from b") == before + sum(written)
    settled(acc, data=True)


def test_what_a_sharded_table_cannot_be_called(acc: Cluster) -> None:
    acc.sql(3, "create table app.long_2 ()")
    for statement, error, said in (
        ("alter table b rename to city", psycopg.errors.DuplicateTable, "already exists"),
        ("alter table b rename to long", psycopg.errors.DuplicateTable, "app.long_2"),
        (f"alter table b rename to {'x' * 57}", psycopg.errors.DuplicateTable, "too long"),
        (
            "do 'begin alter table b rename to x; end'",
            psycopg.errors.FeatureNotSupported,
            "by itself",
        ),
    ):
        with pytest.raises(error, match=said):
            send(acc, 1, statement)
    with as_bob(acc, 1, autocommit=False) as bob:
        bob.execute("alter table b rename to x")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="yet"):
            bob.execute("alter table x add unique (id, v)")
    for node in NODES:
        assert acc.sql(node, "select * from shardman.renamed_tables") == []
        assert int(str(value(acc, node, "select count(*) from b"))) > 0
