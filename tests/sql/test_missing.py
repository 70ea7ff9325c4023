"""A partition whose rows are not there raises an error: it never answers with fewer rows."""

from __future__ import annotations

import psycopg
import pytest

from sql.databases import Node, Nodes

ROWS = 100


@pytest.fixture
def sharded(nodes: Nodes) -> Nodes:
    """acc in four partitions, all on node 1."""
    nodes[1].run("create table acc (id int primary key, note text)")
    nodes[1].run(f"insert into acc select i, 'n' || i from generate_series(1, {ROWS}) i")
    nodes.shard("acc", "id")
    return nodes


def answer(node: Node, query: str = "select count(*) from acc") -> int | str:
    """What a client is told."""
    try:
        return int(node.value(query))
    except psycopg.Error as error:
        return f"{error} {error.diag.message_detail}"


@pytest.mark.parametrize("statement", ["drop table acc_1_data", "drop table acc_1"])
def test_rows_that_are_gone_raise_an_error(sharded: Nodes, statement: str) -> None:
    without = sharded[1].value("select count(*) from acc") - sharded[1].value(
        "select count(*) from acc_1"
    )
    sharded[1].alone(statement)
    for node in sharded.all:
        assert "the rows of this partition are not on its node" in str(answer(node))
        assert "shardman_missing" in str(answer(node, "select count(*) from acc_1"))
        # The others are asked for theirs.
        assert without == sum(node.value(f"select count(*) from acc_{k}") for k in (0, 2, 3))
    with pytest.raises(psycopg.Error, match="shardman_missing"):
        sharded[2].run("insert into acc select i, 'new' from generate_series(1000, 1100) i")
    assert "gets an error" in sharded[1].drift()["acc_1"]
    hint = sharded[1].value("select hint from shardman.drift where subject = 'acc_1'")
    assert "shardman failover 1 --part-name acc_1" in hint
    sharded[1].reconcile()
    assert "shardman_missing" in str(answer(sharded[2]))
    # From a backup.
    sharded[1].rows("select shardman.make_data_table('acc_1')")
    assert sharded[1].reconcile() == 0
    assert answer(sharded[2]) == without


@pytest.mark.parametrize(
    "statement",
    [
        "drop table acc_1",
        "drop table acc_1_data cascade",
        "do $$ begin drop table if exists acc_1; end $$",
        "alter table acc_1 detach partition acc_1_data",
        "alter table acc_1_data rename to mine",
        "alter table acc_1_data drop constraint shardman_partition",
        "create schema another; alter table acc_1_data set schema another",
    ],
)
def test_rows_of_one_partition_go_only_on_purpose(sharded: Nodes, statement: str) -> None:
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="acc"):
        sharded[1].run(statement)
    assert [answer(node) for node in sharded.all] == [ROWS] * 3
    # A table of one's own may be called so where the rows are elsewhere.
    sharded[2].run("create table acc_1_data (id int); drop table acc_1_data")


def test_what_is_taken_out_and_still_there_is_put_back(sharded: Nodes) -> None:
    for node, statement in (
        (1, "alter table acc_1 detach partition acc_1_data"),
        (2, "alter table acc_1 detach partition acc_1_fdw"),
        (2, "drop foreign table acc_2_fdw"),
        (2, "drop table acc_3"),
        (
            0,
            "alter extension postgres_fdw drop server shardman_node_1; drop server shardman_node_1 cascade",
        ),
    ):
        sharded[node].alone(statement)
        assert answer(sharded[node]) == ROWS or "shardman_missing" in str(answer(sharded[node]))
    sharded[0].reconcile()
    assert [answer(node) for node in sharded.all] == [ROWS] * 3


def test_a_whole_partition_cannot_be_detached(sharded: Nodes) -> None:
    for node in (1, 2):
        with pytest.raises(psycopg.errors.ObjectInUse, match="acc_1 cannot be detached"):
            sharded[node].run("alter table acc detach partition acc_1")
    # Others change their tables as ever.
    sharded[1].run(
        "create table mine (id int) partition by hash (id);"
        "create table mine_0 partition of mine for values with (modulus 1, remainder 0);"
        "alter table mine detach partition mine_0; drop table mine, mine_0"
    )
    assert answer(sharded[1]) == ROWS


def test_without_event_triggers_the_reconciler_sees_it(sharded: Nodes) -> None:
    sharded[1].alone("alter event trigger shardman_dropped disable; drop table acc_1_data")
    assert "answers lack its rows" in sharded[1].drift()["acc_1"]
    assert sharded[1].reconcile() == 1
    assert "shardman_missing" in str(answer(sharded[2]))
    assert "gets an error" in sharded[1].drift()["acc_1"]


def test_a_table_is_dropped_as_ever(sharded: Nodes) -> None:
    sharded[1].alone("drop table acc")
    assert sharded[1].value("select to_regclass('acc_1')") is None
    assert sharded[1].value("select count(*) from shardman.emptied") == 0


SHADOW = """
create role bob; create role mallory; grant create, usage on schema public to bob;
set role bob;
create function public.grab() returns bool language plpgsql as
    $$ begin alter role mallory superuser; return true; exception when others then return true; end $$;
create table public.of_bob (id int);
"""


@pytest.mark.parametrize("name", ["pg_class", "pg_namespace", "pg_inherits", "pg_foreign_server"])
def test_what_runs_for_a_role_does_not_read_its_temporary_relations(
    sharded: Nodes, name: str
) -> None:
    """Whoever may make temporary relations could have a view of his called instead of a catalog."""
    node = sharded[1]
    with node.conn.transaction(force_rollback=True):
        node.run(SHADOW)
        node.run(f"create temp view {name} as select * from pg_catalog.{name} where public.grab()")
        node.run("alter table of_bob add column a int; drop table of_bob; reset role")
        # What the deferred trigger does, as when the transaction of whoever dropped it ends.
        node.alone("alter table acc_1 detach partition acc_1_data; set constraints all immediate")
        assert node.rows("select rolsuper from pg_roles where rolname = 'mallory'") == [(False,)]
