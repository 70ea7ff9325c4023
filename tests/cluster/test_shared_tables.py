"""Shared tables on three workers: written through each of them at the same time, by an ordinary role."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from shardman.nodes.invariants import check
from shardman.pg.connection import SyncConnection
from shardman.testing.cluster import Cluster
from shardman.testing.load import REPEATED_IN_CIRCLES
from shardman.testing.waiting import eventually

WORKERS = (1, 2, 3)
PLACE = '"Läden"."Ort\'s"'
SCRIPT = f"""
create table {PLACE} (
    id bigint generated always as identity primary key, "Name" text not null unique check ("Name" <> ''),
    hits int not null default 0,
    part_of bigint references {PLACE} on delete cascade);
comment on table {PLACE} is 'where it is';
create table "Läden".shop (
    no serial primary key, place bigint not null references {PLACE} on update cascade, open bool);
insert into {PLACE} ("Name") values ('a'), ('b');
grant select, insert on {PLACE} to ann;
"""


@pytest.fixture(scope="module")
def shared(cluster: Cluster) -> Cluster:
    """Two tables of bob's, the second of which refers to the first. ann may read and insert."""
    for node in (0, *WORKERS):
        for role in ("bob", "ann"):
            cluster.sql(node, f"create role {role} login password 'b'".encode())
    cluster.sql(0, 'create schema "Läden" authorization bob')
    for node in (0, *WORKERS):
        cluster.sql(node, 'grant usage on schema "Läden" to ann')
    with session(cluster, 1) as bob:
        bob.execute(SCRIPT.encode())
    for relation in (PLACE, '"Läden".shop'):
        done = cluster.cmd("select shardman.create_shared_table(%s, 1)", (relation,))
        assert done.status == "success", done
    return cluster


@contextmanager
def session(
    cluster: Cluster, node: int, role: str = "bob", *, autocommit: bool = True
) -> Iterator[SyncConnection]:
    where = cluster.value(0, "select options from shardman.nodes where id = %s", (node,))
    # Where a lock is waited for that nobody gives back the test is to end.
    limit = "-c statement_timeout=100s"
    dsn = make_conninfo(**{**where, "user": role, "password": "b", "options": limit})
    with psycopg.connect(dsn, autocommit=autocommit) as conn:
        yield conn


def run(cluster: Cluster, node: int, query: str, role: str = "bob") -> list[tuple[Any, ...]]:
    """What a role gets on a node."""
    with session(cluster, node, role) as conn:
        done = conn.execute(query.encode())
        return done.fetchall() if done.description else []


def rows(cluster: Cluster, relation: str) -> list[tuple[Any, ...]]:
    """The rows of all copies, which must be the same."""
    nodes = [
        r[0]
        for r in cluster.sql(
            0, "select node from shardman.shared_copies where relation = %s", (relation,)
        )
    ]
    first, *others = ([*run(cluster, n, f"select * from {relation} order by 1")] for n in nodes)
    assert all(found == first for found in others)
    return first


def test_the_copies_are_alike(shared: Cluster) -> None:
    assert len(rows(shared, PLACE)) == 2
    for node in WORKERS:
        assert shared.value(node, "select shardman.shared_shape(%s)", (PLACE,)) == shared.value(
            1, "select shardman.shared_shape(%s)", (PLACE,)
        )
        assert shared.sql(node, "select * from shardman.drift") == []
    # Numbers of different nodes are different.
    made = [
        run(shared, n, f"insert into {PLACE} (\"Name\") values ('n{n}') returning id", "ann")[0][0]
        for n in WORKERS
    ]
    assert len({*made}) == 3
    assert len(rows(shared, PLACE)) == 5


def test_everybody_writes_the_same_rows(shared: Cluster) -> None:
    run(shared, 1, f"delete from {PLACE}")
    errors: list[psycopg.Error] = []
    done = [0] * 6
    upsert = (
        f'insert into {PLACE} as t ("Name", hits) values (%s, 1)'
        ' on conflict ("Name") do update set hits = t.hits + 1'
    )

    def write(k: int) -> None:
        with session(shared, WORKERS[k % 3]) as conn:
            for i in range(20):
                try:
                    conn.execute(upsert.encode(), (f"r{i % 3}",))
                    done[k] += 1
                except (psycopg.errors.SerializationFailure, psycopg.errors.UniqueViolation):
                    # To be repeated.
                    pass
                except psycopg.Error as error:
                    errors.append(error)

    threads = [threading.Thread(target=write, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    found = rows(shared, PLACE)
    assert [r[1] for r in sorted(found, key=lambda r: r[1])] == ["r0", "r1", "r2"]
    assert sum(r[2] for r in found) == sum(done) > 60


def test_foreign_keys_hold_on_every_node(shared: Cluster) -> None:
    place = run(shared, 3, f"insert into {PLACE} (\"Name\") values ('full') returning id")[0][0]
    run(shared, 2, f'insert into "Läden".shop (place) values ({place})')
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        run(shared, 1, f"delete from {PLACE} where id = {place}")
    with session(shared, 1, autocommit=False) as bob:
        # One transaction: what was written there is seen there.
        bob.execute(f"insert into {PLACE} (\"Name\") values ('new')".encode())
        bob.execute(f'insert into "Läden".shop (place) select max(id) from {PLACE}'.encode())
        bob.execute(f"savepoint s; delete from {PLACE} where id = {place} + 1000".encode())
        bob.execute(b"rollback to s")
    assert len(rows(shared, '"Läden".shop')) == 2
    with session(shared, 2, autocommit=False) as bob:
        bob.execute('delete from "Läden".shop'.encode())
        bob.rollback()
    assert len(rows(shared, '"Läden".shop')) == 2
    assert check(shared.lord_dsn, data=True) == []


FAMILY = """
create table "Läden".clan (id int primary key);
create table "Läden".member (
    clan int references "Läden".clan on delete cascade on update cascade, no int, primary key (clan, no));
create table "Läden".deed (
    clan int, no int, day int, by int references "Läden".clan on delete set null on update cascade,
    primary key (clan, no, day),
    foreign key (clan, no) references "Läden".member on delete cascade on update cascade);
insert into "Läden".clan select generate_series(1, 4);
insert into "Läden".member select c, n from generate_series(1, 4) c, generate_series(1, 3) n;
insert into "Läden".deed select clan, no, d, 1 + clan % 4 from "Läden".member, generate_series(1, 2) d;
"""


def test_foreign_keys_act_on_shared_tables(shared: Cluster) -> None:
    """What they delete, or give another key, is sent as well, when it is done there already."""
    family = ('"Läden".clan', '"Läden".member', '"Läden".deed')
    run(shared, 1, FAMILY)
    for relation in family:
        made = shared.cmd("select shardman.create_shared_table(%s, 1)", (relation,))
        assert made.status == "success", made
    run(shared, 1, 'delete from "Läden".clan where id = 1')
    run(shared, 2, 'update "Läden".clan set id = id + 10 where id in (2, 3)')
    with session(shared, 3, autocommit=False) as bob:
        bob.execute('delete from "Läden".deed where clan = 4 and no = 1'.encode())
        bob.execute(b"savepoint s")
        bob.execute('delete from "Läden".clan'.encode())
        bob.execute(b"rollback to s")
        bob.execute('delete from "Läden".clan where id = 12'.encode())
        bob.commit()
    assert rows(shared, family[0]) == [(4,), (13,)]
    assert rows(shared, family[1]) == [(c, n) for c in (4, 13) for n in (1, 2, 3)]
    assert [r[0] for r in rows(shared, family[2])] == [*[4] * 4, *[13] * 6]
    assert check(shared.lord_dsn, data=True) == []
    # What another copy lacks without their doing is still told.
    shared.sql(
        2,
        'set session_replication_role = replica; delete from "Läden".member where clan = 4'.encode(),
    )
    with pytest.raises(psycopg.errors.SerializationFailure, match="0 of 3 rows"):
        run(shared, 1, 'delete from "Läden".member where clan = 4')
    for relation in reversed(family):
        assert shared.cmd("select shardman.drop_table(%s)", (relation,)).status == "success"


def test_who_may_not_write_cannot(shared: Cluster) -> None:
    """Nor can a setting of his keep his writes from other nodes."""
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        run(shared, 2, f"delete from {PLACE}", "ann")
    with session(shared, 2, "ann") as ann:
        ann.execute("set shardman.shared = 'arrives'")
        ann.execute(f"insert into {PLACE} (\"Name\") values ('everywhere')".encode())
        for query in (
            "insert into shardman.shared_door_1 values ('x', 'delete', '{1}', '{}')",
            "select * from shardman.shared_locks for update",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                ann.execute(query.encode())
    assert "everywhere" in {r[1] for r in rows(shared, PLACE)}


def test_a_node_is_away(shared: Cluster) -> None:
    shared.stop_node(3)
    try:
        with pytest.raises(psycopg.errors.OperationalError, match="node 3 cannot be reached"):
            run(shared, 2, f"update {PLACE} set hits = 0")
        assert run(shared, 2, f"select count(*) from {PLACE}")[0][0] > 0
        refused = shared.cmd("select shardman.unshare_table('\"Läden\".shop', 1)")
        assert refused.code == "node_unreachable"
    finally:
        shared.start_node(3)
    eventually(
        "writes go on",
        lambda: run(shared, 2, f"update {PLACE} set hits = 7") == [],
        tolerate=psycopg.Error,
    )
    assert {r[2] for r in rows(shared, PLACE)} == {7}


def test_nodes_come_and_go(shared: Cluster) -> None:
    dsn = shared.add_server()
    refused = shared.cmd("select shardman.add_node(%s)", (dsn,))
    assert refused.error is not None and "there is no role bob" in refused.error
    with psycopg.connect(dsn, autocommit=True) as conn:
        for role in ("bob", "ann"):
            conn.execute(f"create role {role} login password 'b'".encode())
    added = shared.cmd("select shardman.add_node(%s)", (dsn,))
    assert added.status == "success", added
    node = shared.value(0, "select max(id) from shardman.nodes")
    assert len(rows(shared, PLACE)) > 0
    assert (
        shared.value(0, "select count(*) from shardman.shared_copies where node = %s", (node,)) == 2
    )
    run(shared, node, f"insert into {PLACE} (\"Name\") values ('from there')")
    run(shared, 1, 'delete from "Läden".shop')
    assert rows(shared, '"Läden".shop') == []
    assert shared.cmd("select shardman.rm_node(%s)", (node,)).status == "success"
    run(shared, 2, f"delete from {PLACE} where \"Name\" = 'from there'")
    # What stays there is a plain table.
    assert run(
        shared, node, f"update {PLACE} set hits = 1 where \"Name\" = 'from there' returning 1"
    ) == [(1,)]


def test_a_copy_is_made_right(shared: Cluster) -> None:
    shared.sql(2, f"set session_replication_role = replica; delete from {PLACE}".encode())
    found = [
        f for f in check(shared.lord_dsn, data=True, patience=0) if f.subject.startswith(PLACE)
    ]
    assert [f.subject for f in found] == [f"{PLACE} on node 2"]
    assert shared.cmd("select shardman.create_shared_table(%s, 1)", (PLACE,)).status == "success"
    assert len(rows(shared, PLACE)) > 0
    assert check(shared.lord_dsn, data=True) == []


def columns_of(cluster: Cluster, node: int) -> str:
    return str(cluster.value(node, "select shardman.shared_shape(%s)", (PLACE,)))


@pytest.mark.parametrize(
    "statement",
    [
        "add column code text",
        "add column since timestamptz not null default clock_timestamp()",
        "add column many int not null default 3 check (many > 0)",
        'rename column "Name" to "Called"',
        "alter column hits type bigint",
        "alter column id set statistics 7",
        "add constraint named unique (code)",
        "drop column code",
        'rename column "Called" to "Name"',
        'alter column "Name" type varchar(40)',
    ],
)
def test_it_is_changed_on_every_node_while_others_write(shared: Cluster, statement: str) -> None:
    stop = threading.Event()
    errors: list[psycopg.Error] = []

    def write(node: int) -> None:
        while not stop.is_set():
            try:
                run(shared, node, f"update {PLACE} set hits = hits + 1")
            except REPEATED_IN_CIRCLES:
                # To be repeated. Who is the victim of a circle follows from deadlock_timeout, 10 ms here.
                pass
            except psycopg.Error as error:
                errors.append(error)
            stop.wait(0.05)

    threads = [threading.Thread(target=write, args=(n,)) for n in WORKERS]
    for thread in threads:
        thread.start()
    try:
        run(shared, 2, f"alter table {PLACE} {statement}")
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert errors == []
    assert rows(shared, PLACE)
    assert len({columns_of(shared, n) for n in WORKERS}) == 1


def test_ddl_of_it_is_part_of_a_transaction(shared: Cluster) -> None:
    before = columns_of(shared, 1)
    with session(shared, 3, autocommit=False) as bob:
        bob.execute(f"alter table {PLACE} add column gone int".encode())
        bob.execute(f"update {PLACE} set gone = 1".encode())
        bob.execute(f"create index on {PLACE} (gone)".encode())
        bob.rollback()
        bob.execute(f"alter table {PLACE} add column kept int".encode())
        bob.execute(f"update {PLACE} set kept = 1".encode())
        bob.execute(f'create index "kept Index" on {PLACE} (kept)'.encode())
    assert len({columns_of(shared, n) for n in WORKERS} | {before}) == 2
    assert {r[-1] for r in rows(shared, PLACE)} == {1}
    run(shared, 1, f"comment on column {PLACE}.kept is 'so'; ")
    run(shared, 1, 'drop index "Läden"."kept Index"')
    run(shared, 2, f"revoke insert on {PLACE} from ann")
    assert len({columns_of(shared, n) for n in WORKERS}) == 1
    eventually("the lord knows", lambda: not shared.commands_left())
    assert "kept Index" not in str(
        shared.value(
            0, "select definition from shardman.shared_tables where relation = %s", (PLACE,)
        )
    )
    assert check(shared.lord_dsn, data=True) == []


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (f"alter table {PLACE} enable row level security", "row-level security"),
        (f"alter table {PLACE} drop column id cascade", "primary key|on this node only"),
        (f"create index concurrently on {PLACE} (hits)", "CONCURRENTLY"),
        (
            f"do $$ begin alter table {PLACE} add column x int; perform 1; end $$",
            "on this node only",
        ),
        (f"alter table {PLACE} add column x int; select 1", "on this node only"),
        (f"drop table {PLACE}", "other objects depend on it"),
    ],
)
def test_what_cannot_be_done_to_it_changes_nothing(
    shared: Cluster, statement: str, words: str
) -> None:
    before = {columns_of(shared, n) for n in WORKERS}
    with pytest.raises(psycopg.Error, match=words):
        run(shared, 2, statement)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner"):
        run(shared, 2, f"alter table {PLACE} add column x int", "ann")
    assert {columns_of(shared, n) for n in WORKERS} == before


TAG = '"Läden"."Tag"'


def test_it_is_dropped_by_plain_words(shared: Cluster) -> None:
    run(shared, 2, f"create table {TAG} (id int primary key, t text)")
    run(shared, 2, f"insert into {TAG} values (1, 'a')")
    assert shared.cmd("select shardman.create_shared_table(%s, 2)", (TAG,)).status == "success"
    with session(shared, 1, autocommit=False) as bob:
        bob.execute(f"drop table if exists {TAG}".encode())
        bob.execute(f"create table {TAG} (id int primary key, other int)".encode())
        bob.execute(f"insert into {TAG} values (1, 1)".encode())
    eventually("the lord knows", lambda: not shared.commands_left())
    # Who replaces it has a shared one again.
    for node in WORKERS:
        assert run(shared, node, f"select * from {TAG}") == [(1, 1)]
    run(shared, 1, f"drop table {TAG}")
    eventually("the lord knows", lambda: not shared.commands_left())
    assert shared.sql(0, "select * from shardman.shared_tables where relation = %s", (TAG,)) == []
    for node in (1, 2, 3):
        assert shared.value(node, "select to_regclass(%s)", (TAG,)) is None
    assert check(shared.lord_dsn, data=True) == []


def test_it_becomes_a_plain_table_again(shared: Cluster) -> None:
    refused = shared.cmd("select shardman.unshare_table(%s, 1)", (PLACE,))
    assert refused.error is not None and "needs" in refused.error
    for relation in ('"Läden".shop', PLACE):
        assert shared.cmd("select shardman.unshare_table(%s, 2)", (relation,)).status == "success"
    run(shared, 2, f"insert into {PLACE} (\"Name\") values ('alone')")
    for node in (1, 3):
        assert shared.value(node, "select shardman.find_relation(%s)", (PLACE,)) is None
    assert check(shared.lord_dsn, patience=30) == []
