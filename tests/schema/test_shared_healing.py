"""A change of a shared table that not all nodes have committed reaches all others by itself."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from schema.trap import NO_TRAP, trap
from shardman.nodes.invariants import check
from shardman.nodes.status import read
from shardman.pg.connection import SyncConnection
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

NODES = (1, 2, 3)
QUIET = "suppress_redundant_updates_trigger"
KIND = '"Län"."Art\'s"'
TRAP = trap(1.5, "ALTER TABLE", "CREATE INDEX", "CREATE TRIGGER", "DROP TABLE")


@pytest.fixture(scope="module")
def shared(cluster: Cluster) -> Cluster:
    """Two shared tables of bob's, who is no superuser."""
    for node in (0, *NODES):
        cluster.sql(
            node, "create role bob login password 'b'; create schema \"Län\" authorization bob"
        )
    with as_bob(cluster, 1) as bob:
        bob.execute(f"create table {KIND} (id int primary key, v int)".encode())
        bob.execute(f"insert into {KIND} select i, i from generate_series(1, 30) i".encode())
        bob.execute('create table "Län".gone (id int primary key)')
    for relation in (KIND, '"Län".gone'):
        done = cluster.cmd("select shardman.create_shared_table(%s, 1)", (relation,))
        assert done.status == "success", done
    return cluster


@contextmanager
def as_bob(cluster: Cluster, node: int) -> Iterator[SyncConnection]:
    dsn = make_conninfo(cluster.dsn(node), user="bob", password="b")
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield conn


@contextmanager
def writing(cluster: Cluster) -> Iterator[None]:
    """Two clients write all the time; while nodes differ they may fail."""
    done = threading.Event()

    def write(node: int) -> None:
        with as_bob(cluster, node) as bob:
            while not done.wait(0.02):
                with contextlib.suppress(psycopg.Error):
                    bob.execute(f"update {KIND} set v = v + 1 where v < 5".encode())

    with ThreadPoolExecutor(2) as pool:
        ended = [pool.submit(write, node) for node in (1, 3)]
        try:
            yield
        finally:
            done.set()
    for each in ended:
        each.result()


def healed(cluster: Cluster, relation: str = KIND) -> None:
    """All nodes have the same schema and rows, nothing is kept any more, and nothing is wrong."""
    settled(cluster, relation)
    eventually("what it submitted has ended", lambda: not cluster.commands_left())
    assert check(cluster.lord_dsn, data=True, patience=60) == []


def settled(cluster: Cluster, relation: str) -> None:
    """All nodes have the same schema, and nothing is kept any more."""
    eventually(
        "all nodes have settled it",
        lambda: [
            [cluster.value(n, f"select {what}") for n in NODES]
            for what in (
                f"count(distinct id) from shardman.schema_changes where $${relation}$$ = any (tables)",
                f"coalesce(shardman.shared_shape($${relation}$$), '')",
            )
        ],
        until=lambda found: found[0] == [0, 0, 0] and len(set(found[1])) == 1,
        tolerate=psycopg.Error,
        after=lambda: [p.what for p in read(cluster.lord_dsn).problems],
    )


def transact(cluster: Cluster, *statements: str) -> None:
    with as_bob(cluster, 1) as bob, bob.transaction():
        for statement in statements:
            bob.execute(statement.encode())


def half_committed(cluster: Cluster, node: int, statement: str, *, at: int) -> None:
    """Sends a statement to a node whose part on another fails when others may have committed theirs."""
    cluster.sql(at, TRAP)
    try:
        with as_bob(cluster, node) as bob, pytest.raises(psycopg.Error, match="trapped"):
            bob.execute(statement.encode())
    finally:
        cluster.sql(at, NO_TRAP)


def test_what_some_nodes_committed_all_get(shared: Cluster) -> None:
    for node, at, statement in (
        (1, 3, f"alter table {KIND} add column at float not null default random()"),
        (2, 3, f"create index on {KIND} (v)"),
        (2, 1, f"alter table {KIND} add column n bigserial unique"),
        (
            1,
            2,
            f"create trigger quiet before update on {KIND} for each row execute function {QUIET}()",
        ),
        (1, 3, f"alter table {KIND} alter id type text using id || '!'"),
    ):
        with writing(shared):
            half_committed(shared, node, statement, at=at)
            settled(shared, KIND)
        healed(shared)
    for node in NODES:
        assert shared.value(node, f"select max(id) from {KIND}") == "9!", node
        indexes = "select count(*) from pg_indexes where tablename = 'Art''s'"
        assert shared.value(node, indexes) == 3
        assert shared.value(node, f"select count(n) from {KIND}") == 30
        guarded = "select pg_get_triggerdef(oid) from pg_trigger where tgname = 'quiet'"
        assert "fires_here" in str(shared.value(node, guarded))
    with as_bob(shared, 3) as bob:
        bob.execute(f"insert into {KIND} values ('new', 1, 2)".encode())
        bob.execute(f"update {KIND} set v = v + 1".encode())
    assert check(shared.lord_dsn, data=True, patience=60) == []


def test_a_table_that_was_dropped_on_some_nodes_is_dropped(shared: Cluster) -> None:
    half_committed(shared, 1, 'drop table "Län".gone', at=3)
    eventually(
        "it is gone everywhere",
        lambda: [shared.value(n, "select to_regclass('\"Län\".gone')") for n in NODES],
        until=lambda found: found == [None] * 3,
    )
    healed(shared, '"Län".gone')
    known = "select count(*) from shardman.shared_tables"
    eventually(
        "all have forgotten it", lambda: [shared.value(n, known) for n in (0, *NODES)] == [1] * 4
    )


def test_a_table_that_was_made_with_what_refers_to_it(shared: Cluster) -> None:
    shared.sql(0, "insert into shardman.settings values ('new_tables', 'shared')")
    eventually(
        "node 1 has heard of it",
        lambda: shared.value(1, "select shardman.setting('new_tables', '')") == "shared",
    )
    made = '"Län".made'
    shared.sql(3, TRAP)
    try:
        with pytest.raises(psycopg.Error, match="trapped"):
            transact(
                shared,
                f"create table {made} (id int primary key)",
                f"insert into {made} values (7)",
                f"alter table {KIND} add column made int default 7 references {made}",
            )
    finally:
        shared.sql(3, NO_TRAP)
    settled(shared, KIND)
    settled(shared, made)
    kept = "select count(*) from shardman.shared_tables where definition ? 'made_now'"
    eventually("the lord knows", lambda: [shared.value(n, kept) for n in NODES] == [0, 0, 0])
    healed(shared)
    for node in NODES:
        assert shared.value(node, f"select sum(id) from {made}") == 7
        assert shared.value(node, f"select distinct made from {KIND}") == 7
    with as_bob(shared, 2) as bob, bob.transaction():
        bob.execute(f"alter table {KIND} drop column made".encode())
        bob.execute(f"drop table {made}".encode())
    healed(shared)


def test_a_node_dies_while_all_commit(shared: Cluster) -> None:
    """Others write without it, and status says what it lacks, until it is back."""
    shared.sql(0, "insert into shardman.settings values ('failover_after', '1')")
    shared.sql(3, TRAP)
    with ThreadPoolExecutor(1) as pool, as_bob(shared, 1) as bob:
        sent = pool.submit(bob.execute, f"alter table {KIND} add check (v > 0)".encode())
        eventually("its part is being committed", lambda: shared.sql(3, "select * from trap.held"))
        shared.kill_node(3)
        with pytest.raises(psycopg.Error):
            sent.result()
    told = eventually(
        "status tells",
        lambda: [p for p in read(shared.lord_dsn).problems if "add check" in p.what],
    )
    assert {p.subject for p in told} >= {"node 3"}
    with as_bob(shared, 2) as bob:
        write = f"update {KIND} set v = v + 1"
        eventually("others write", lambda: bob.execute(write.encode()), tolerate=psycopg.Error)
    shared.start_node(3)
    shared.sql(3, NO_TRAP)
    copies = "select count(*) from shardman.shared_copies"
    eventually("its copy is in use", lambda: shared.value(0, copies) == 3)
    healed(shared)
    checks = "select count(*) from pg_constraint where contype = 'c' and conrelid = %s::regclass"
    assert [shared.value(n, checks, (KIND,)) for n in NODES] == [1, 1, 1]
