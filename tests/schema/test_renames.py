"""Constraints and columns of a sharded table get other names by plain DDL, the table itself by a command."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from schema.bob import NODES, ROWS, WORKERS, as_bob, move_in, ok, send, value
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

SCHEMA = """
create table "Land" (code text primary key, name text);
insert into "Land" select 'c' || i, 'n' || i from generate_series(0, 9) i;
create table acc (
    id int primary key, v int not null default 0, land text constraint "Lies in" references "Land", n bigserial,
    constraint acc_v unique (id, v));
insert into acc select i, i, 'c' || i % 10 from generate_series(1, 60) i;
"""
#: On a node: the constraints of a kind that its copies of a table have, without their numbers.
CONSTRAINTS = """
select c.relname, regexp_replace(o.conname, '_[0-9]+$', '')
  from pg_constraint o join pg_class c on c.oid = o.conrelid
 where o.contype = %s and c.relname ~ ('^' || %s || '_[0-9]+_data$') order by 1, 2
"""


@pytest.fixture(scope="module")
def acc(cluster: Cluster) -> Cluster:
    """Bob's table, with replicas, that refers to his shared one."""
    commands = (
        "select shardman.create_shared_table('app.\"Land\"', 1)",
        "select shardman.create_hash_partitions(1, 'app.acc', 'id', 4)",
        "select shardman.set_replevel('app.acc', 1)",
    )
    move_in(cluster, SCHEMA, commands, "acc")
    cluster.sql(1, 'create schema "Else" authorization bob')
    return cluster


def settled(cluster: Cluster) -> None:
    eventually("what was submitted has ended", lambda: not cluster.commands_left())
    assert check(cluster.lord_dsn, data=True, patience=30) == []


def on_copies(cluster: Cluster, table: str, kind: str) -> list[tuple[str, ...]]:
    return [r for n in WORKERS for r in cluster.sql(n, CONSTRAINTS, (kind, table))]


def on_parents(cluster: Cluster, table: str) -> set[tuple[str, ...]]:
    return {
        r
        for n in NODES
        for r in cluster.sql(
            n,
            "select conname, pg_get_constraintdef(oid) from pg_constraint"
            " where conrelid = %s::regclass and contype in ('p', 'u')",
            (table,),
        )
    }


def moved(cluster: Cluster, table: str) -> None:
    """Moves a partition of a table to the node without a copy of it."""
    part = cluster.value(
        0, "select min(part_name) from shardman.partitions where relation = %s", (table,)
    )
    copies = cluster.sql(0, "select owner from shardman.partitions where part_name = %s", (part,))
    dest = next(n for n in WORKERS if (n,) not in copies)
    ok(cluster, "select shardman.move_part(%s, %s)", part, dest)


def test_keys_and_foreign_keys(acc: Cluster) -> None:
    send(
        acc,
        2,
        'alter table acc rename constraint acc_pkey to "The key"',
        "alter index acc_v rename to v_once",
        'alter table acc rename constraint "Lies in" to lies_in',
    )
    assert on_parents(acc, "app.acc") == {
        ("The key", "PRIMARY KEY (id)"),
        ("v_once", "UNIQUE (id, v)"),
    }
    assert [r[1] for r in on_copies(acc, "acc", "p")] == ["The key"] * 8
    assert [r[1] for r in on_copies(acc, "acc", "u")] == ["v_once"] * 8
    assert [r[1] for r in on_copies(acc, "acc", "f")] == ["lies_in"] * 4
    for node in NODES:
        with pytest.raises(psycopg.errors.UniqueViolation, match="The key"):
            send(acc, node, "insert into acc (id) values (7)")
        with pytest.raises(psycopg.errors.ForeignKeyViolation, match="lies_in"):
            send(acc, node, "update acc set land = 'nowhere' where id = 7")
    settled(acc)
    moved(acc, "app.acc")
    settled(acc)
    for node in NODES:
        assert acc.sql(node, "select * from shardman.changed_constraints") == []
    assert {r[1] for r in on_copies(acc, "acc", "f")} == {"lies_in"}


def test_a_rename_that_is_rolled_back_was_none(acc: Cluster) -> None:
    before = on_parents(acc, "app.acc"), on_copies(acc, "acc", "p"), on_copies(acc, "acc", "f")
    with as_bob(acc, 3, autocommit=False) as bob:
        bob.execute('alter table acc rename constraint "The key" to x')
        bob.execute("alter table acc rename constraint lies_in to y")
        bob.rollback()
    assert (
        on_parents(acc, "app.acc"),
        on_copies(acc, "acc", "p"),
        on_copies(acc, "acc", "f"),
    ) == before
    settled(acc)


def test_key_columns_and_those_that_are_referred_to(acc: Cluster) -> None:
    send(
        acc,
        1,
        'alter table acc rename column id to "Number"',
        'alter table "Land" rename column code to "Code"',
    )
    for node in NODES:
        assert value(acc, node, 'select count(*) from acc where "Number" = 7') == 1
        if node:
            with pytest.raises(psycopg.errors.ForeignKeyViolation):
                send(acc, node, """update acc set land = 'nowhere' where "Number" = 7""")
    settled(acc)
    moved(acc, "app.acc")
    settled(acc)
    assert on_parents(acc, "app.acc") == {
        ("The key", 'PRIMARY KEY ("Number")'),
        ("v_once", 'UNIQUE ("Number", v)'),
    }


#: What a node would change of user mappings, and the road logins that it would drop.
WAYS = "select subject from shardman.server_changes() union all select r::text from shardman.spare_roads() r"


@pytest.mark.parametrize(
    "statement",
    [
        "select shardman.rename_parts('app.acc', 'app.b'), shardman.rename_parent('app.acc', 'app.b')",
        "select shardman.rename_metadata('app.acc', 'app.b')",
    ],
)
def test_nobody_loses_his_way_while_metadata_and_names_differ(acc: Cluster, statement: str) -> None:
    """A node hears of the new name before it has it, or after. Node 0 has no copy of bob's shared table."""
    for node in (0, 2):
        with acc.connect(node) as conn, conn.transaction(force_rollback=True):
            conn.execute("set local shardman.ddl = 'here'")
            assert conn.execute(WAYS.encode()).fetchall() == []
            conn.execute(statement.encode())
            assert conn.execute(WAYS.encode()).fetchall() == [], node


def test_the_table_while_it_is_used(acc: Cluster) -> None:
    """By a view, which knows it under either name."""
    send(acc, 1, 'create view seen as select "Number", v from acc')
    stop = threading.Event()
    written = [0, 0, 0]

    def write(node: int) -> None:
        with as_bob(acc, node) as bob:
            while not stop.is_set():
                bob.execute(f'update seen set v = v + 1 where "Number" = {node}'.encode())
                written[node - 1] += 1

    before = int(str(value(acc, 1, "select sum(v) from seen")))
    with ThreadPoolExecutor() as pool:
        at_work = [pool.submit(write, node) for node in WORKERS]
        try:
            ok(acc, "select shardman.rename_table('app.acc', 'app.\"B b\"')")
            ok(acc, 'select shardman.rename_table(\'app."B b"\', \'"Else"."B b"\')')
        finally:
            stop.set()
        for each in at_work:
            each.result()
    assert all(written), written
    for node in NODES:
        assert value(acc, node, "select sum(v) from seen") == before + sum(written)
        assert value(acc, node, 'select count(*) from "Else"."B b"') == ROWS
        with pytest.raises(psycopg.errors.UndefinedTable):
            value(acc, node, "select count(*) from acc")
    for node in WORKERS:
        send(acc, node, f'insert into "Else"."B b" ("Number") values ({500 + node})')
    settled(acc)
    moved(acc, '"Else"."B b"')
    settled(acc)
    for node in NODES:
        acc.sql(node, "select shardman.reconcile()")
        assert acc.sql(node, "select * from shardman.renamed_tables") == []
    assert check(acc.lord_dsn, data=True, patience=30) == []


def test_ddl_and_a_new_table_of_the_former_name(acc: Cluster) -> None:
    send(acc, 3, 'alter table "Else"."B b" add column late int default 7')
    send(acc, 2, "create table acc (id int primary key)", "insert into acc values (1), (2)")
    ok(acc, "select shardman.create_hash_partitions(2, 'app.acc', 'id', 4)")
    for node in NODES:
        assert value(acc, node, "select count(*) from acc") == 2
        assert value(acc, node, 'select sum(late) from "Else"."B b"') == 7 * (ROWS + 3)
    settled(acc)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ('"Else".acc', "names that .* would have are taken"),
        ("nowhere.acc", "there is no schema nowhere"),
        ('"Else".other', "another name and another schema"),
        ("app.acc", "the same name"),
        ("app." + "x" * 57, "too long"),
    ],
)
def test_what_is_refused_changes_nothing(acc: Cluster, wanted: str, said: str) -> None:
    acc.sql(3, 'create table if not exists "Else".acc_2 ()')
    done = acc.cmd("select shardman.rename_table('app.acc', %s)", (wanted,))
    assert done.status == "failed", done
    assert re.search(said, done.error or ""), done
    assert value(acc, 2, "select count(*) from acc") == 2


def test_a_schema_that_has_only_a_shared_table_keeps_its_name(acc: Cluster) -> None:
    for node in NODES:
        acc.sql(node, 'create schema if not exists "Only shared"')
    acc.sql(1, 'create table "Only shared".s (id int primary key)')
    ok(acc, "select shardman.create_shared_table('\"Only shared\".s', 1)")
    for node in NODES:
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="cannot be renamed"):
            acc.sql(node, 'alter schema "Only shared" rename to other')
    for node in NODES:
        assert acc.sql(node, "select to_regnamespace('other') is null") == [(True,)]
    acc.sql(2, 'insert into "Only shared".s values (1)')
    settled(acc)
