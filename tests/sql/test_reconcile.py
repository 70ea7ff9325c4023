"""A node follows its metadata, by itself and in peace with those who use it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import psycopg
import pytest
from psycopg.types.json import Jsonb

from shardman.testing.waiting import eventually
from sql.databases import Node, Nodes, numbers, table_rows

ROWS = 100
SERVER = """
select s.srvname from pg_foreign_table f join pg_foreign_server s on s.oid = f.ftserver
 where f.ftrelid = shardman.attached_to(%s)
"""


@pytest.fixture
def sharded(nodes: Nodes) -> Nodes:
    """acc in four partitions, all on node 1."""
    nodes[1].run("create table acc (id int primary key, note text)")
    nodes[1].run(f"insert into acc select i, 'n' || i from generate_series(1, {ROWS}) i")
    nodes.shard("acc", "id")
    return nodes


def all_rows(nodes: Nodes) -> bool:
    """Every node sees every row once."""
    return all(
        n.rows("select count(*), count(distinct id) from acc") == [(ROWS, ROWS)] for n in nodes.all
    )


def test_a_new_table_appears_on_every_node(sharded: Nodes) -> None:
    for node in sharded.all:
        assert node.drift() == {}
        assert node.value("select note from acc where id = 77") == "n77"
        assert node.value("select count(*) from acc_1") > 0
        assert node.reconcile() == 0
    assert all_rows(sharded)


def test_a_table_that_was_renamed_is_named(sharded: Nodes) -> None:
    node = sharded[2]
    node.alone('alter table acc rename to "New acc"')
    assert node.reconcile() > 0
    assert node.drift()["acc"] == (
        'it is called "New acc" here: shardman exec --nodes 2 \'alter table "New acc" rename to acc\''
    )
    node.alone('alter table "New acc" rename to acc')
    assert (node.reconcile(), node.drift()) == (0, {})


def test_nothing_to_do_writes_nothing(sharded: Nodes) -> None:
    with sharded[2].connect(autocommit=False) as conn:
        assert conn.execute("select shardman.reconcile()").fetchone() == (0,)
        assert conn.execute("select pg_current_xact_id_if_assigned()").fetchone() == (None,)


def test_what_may_put_a_node_out_of_line_is_counted(sharded: Nodes) -> None:
    node = sharded[2]
    # A session reports what it has written at most once a second.
    counted = "select shardman.changes_counted() from pg_stat_force_next_flush()"
    before = node.value(counted)
    for change in (
        "drop foreign table acc_1_fdw",
        "create sequence of_mine",
        "alter server shardman_node_1 options (add sslmode 'disable')",
        # As when they are copied: nobody else writes to those of a worker.
        "set application_name = 'shardman lord 1'; insert into shardman.settings values ('mine', '1')",
        "update shardman.partitions set owner = 2 where part_name = 'acc_1'",
    ):
        node.run(change)
        after = node.value(counted)
        assert after > before, change
        before = after


def test_the_others_hear_of_a_move_at_once(sharded: Nodes) -> None:
    sharded.move("acc_1", 1, 2)
    assert all_rows(sharded)  # forwarded by the old owner
    sharded.own("acc_1", 2)
    assert sharded[0].value(SERVER, "acc_1") == "shardman_node_2"
    assert sharded[1].value(SERVER, "acc_1") == "shardman_node_2"
    assert [n.drift() for n in sharded.all] == [{}, {}, {}]
    assert all_rows(sharded)


def test_a_route_waits_for_transactions_older_than_the_change(sharded: Nodes) -> None:
    lord = sharded[0]
    sharded.move("acc_1", 1, 2)
    with lord.connect(autocommit=False) as client:
        client.execute("select 1")
        sharded.own("acc_1", 2)
        assert lord.value(SERVER, "acc_1") == "shardman_node_1"
        assert lord.reconcile() == 1
        (hint,) = lord.rows("select hint from shardman.drift where subject = 'acc_1'")
        assert f"pid {client.info.backend_pid}" in hint[0]
        assert client.execute("select count(*) from acc").fetchone() == (ROWS,)
    with lord.connect(autocommit=False) as younger:
        younger.execute("select 1")
        assert lord.reconcile() == 0
    assert lord.value(SERVER, "acc_1") == "shardman_node_2"
    assert all_rows(sharded)


def test_a_transaction_of_the_shardlord_is_not_waited_for(sharded: Nodes) -> None:
    sharded.move("acc_1", 1, 2)
    with sharded[0].connect(autocommit=False, application_name="shardman lord 5") as lord:
        lord.execute("select 1")
        sharded.own("acc_1", 2)
    assert sharded[0].value(SERVER, "acc_1") == "shardman_node_2"


def test_a_partition_in_use_is_left_and_the_others_are_not(sharded: Nodes) -> None:
    lord = sharded[0]
    for k in (1, 2, 3):
        sharded.move(f"acc_{k}", 1, 2)
    lord.receive(("alter table shardman.partitions disable trigger on_metadata", ()))
    sharded.own("acc_2", 2, 0)
    sharded.own("acc_1", 2, 0)
    sharded.own("acc_3", 2, 0)
    with lord.connect(autocommit=False) as client:
        client.execute("lock table acc_2 in access share mode")
        left = 3
        for _ in range(5):
            begun = time.monotonic()
            left = lord.reconcile()
            assert time.monotonic() - begun < 10
        assert left == 1
        assert lord.value(SERVER, "acc_2") == "shardman_node_1"
        assert lord.value("select count(*) from shardman.problems") == 0
    assert lord.reconcile() == 0
    assert all_rows(sharded)


def test_a_data_table_is_never_taken_out_of_its_slot(sharded: Nodes) -> None:
    sharded.own("acc_1", 2)
    assert sharded[1].reconcile() == 1
    assert "data table is in the partition" in sharded[1].drift()["acc_1"]
    assert sharded[1].value("select count(*) from acc") == ROWS
    assert sharded[2].reconcile() == 1
    assert "the data table is missing" in sharded[2].drift()["acc_1"]


def test_a_route_in_the_place_of_the_data_table_is_the_fences_business(sharded: Nodes) -> None:
    node = sharded[2]
    node.rows("select shardman.make_data_table('acc_1')")
    sharded.own("acc_1", 2, 2)
    assert node.reconcile() == 1
    assert "the route is in the partition" in node.drift()["acc_1"]
    assert node.value(SERVER, "acc_1") == "shardman_node_1"


def test_an_empty_slot_gets_what_belongs_there(sharded: Nodes) -> None:
    sharded[1].alone("alter table acc_1 detach partition acc_1_data")
    assert sharded[1].reconcile() == 0
    sharded[2].alone("alter table acc_1 detach partition acc_1_fdw")
    sharded[2].run("drop foreign table acc_2_fdw; drop table acc_3")
    assert sharded[2].reconcile() == 0
    assert all_rows(sharded)


def test_a_dropped_table_appears_again_and_its_rows_too(sharded: Nodes) -> None:
    sharded[2].alone("drop table acc")
    assert sharded[2].drift()["acc"] == "the table is missing"
    assert sharded[2].reconcile() == 0
    assert all_rows(sharded)


def test_a_name_that_is_taken_is_a_problem_until_it_is_free(nodes: Nodes) -> None:
    nodes[1].run("create table acc (id int primary key)")
    nodes[2].run("create table acc_1 (mine int); insert into acc_1 values (42)")
    nodes[0].run("create view acc as select 1 as mine")
    nodes.shard("acc", "id")
    # Rather no table than one whose answers lack the rows of a partition.
    assert set(nodes[2].drift()) == {"acc"}
    assert "another relation with the name acc_1" in nodes[2].drift()["acc"]
    assert nodes[2].value("select to_regclass('acc')") is None
    assert "another relation" in nodes[0].drift()["acc"]
    nodes[2].run("alter table acc_1 rename to mine")
    nodes[0].run("drop view acc")
    assert (nodes[0].reconcile(), nodes[2].reconcile()) == (0, 0)
    assert nodes[2].value("select mine from mine") == 42
    assert nodes[2].value("select count(*) from acc") == 0


def test_a_table_appears_whole_however_its_metadata_arrives(nodes: Nodes) -> None:
    nodes[1].run("create table acc (id int primary key)")
    found = nodes[1].describe("acc", "id", 3)
    table, *parts = table_rows(found, 3, 1, ["acc_0", "acc_1", "acc_2"])
    for first, last in (((table, *parts[:2]), parts[2:]), (parts, (table,))):
        node = nodes[2] if first[0] is table else nodes[0]
        node.receive(*first)
        node.reconcile()
        assert node.value("select to_regclass('acc')") is None
        node.receive(*last)
        assert node.value("select count(*) from pg_inherits") == 6
        assert node.drift() == {}


def test_a_type_that_is_missing_is_a_problem_until_it_is_made(nodes: Nodes) -> None:
    nodes[1].run("create type mood as enum ('ok'); create table acc (id int primary key, m mood)")
    with nodes[2].connect() as listener:
        listener.execute("listen shardman_problem")
        nodes.shard("acc", "id")
        assert list(listener.notifies(timeout=5, stop_after=1)) != []
    assert 'type "public.mood" does not exist' in nodes[2].drift()["acc"]
    assert nodes[2].reconcile() > 0
    since = nodes[2].value("select since from shardman.problems where subject = 'acc'")
    nodes[2].reconcile()
    assert nodes[2].value("select since from shardman.problems where subject = 'acc'") == since
    nodes[2].run("create type mood as enum ('ok')")
    assert nodes[2].reconcile() == 0
    assert nodes[2].drift() == {}


def test_nothing_that_arrives_ends_the_stream(node: Node) -> None:
    node.receive(
        ("insert into shardman.tables values ('acc', 'id', 4, '', 1, '{}')", ()),
        ("insert into shardman.partitions values ('acc_0', 1, null, null, 'acc')", ()),
        ("insert into shardman.partitions values ('elsewhere', 7, null, null, 'nowhere')", ()),
        ("insert into shardman.nodes values (9, 'x', 'active', false, 1, '{\"port\": \"x\"}')", ()),
    )
    assert node.drift() != {}
    node.receive(("delete from shardman.tables", ()), ("delete from shardman.partitions", ()))


def test_a_table_that_leaves_the_metadata_is_dropped_where_it_has_no_rows(sharded: Nodes) -> None:
    sharded.receive(("delete from shardman.partitions", ()), ("delete from shardman.tables", ()))
    for node in sharded.all:
        node.reconcile()
    assert sharded[2].value("select to_regclass('acc')") is None
    assert (
        sharded[2].value(
            "select count(*) from pg_foreign_table where ftrelid::regclass::text like 'acc%%'"
        )
        == 0
    )
    assert sharded[2].drift() == {}
    assert sharded[1].value("select count(*) from acc") == ROWS
    assert "acc_0_data" in sharded[1].drift()["former table acc"]
    sharded[1].run("drop table acc")
    sharded[1].reconcile()
    assert sharded[1].drift() == {}


def test_a_table_of_the_same_name_that_is_not_ours_is_not_dropped(nodes: Nodes) -> None:
    nodes[2].receive(("insert into shardman.tables values ('acc', 'id', 4, '', 1, '{}')", ()))
    nodes[2].run("create table acc (mine int)")
    nodes[2].receive(("delete from shardman.tables", ()))
    nodes[2].reconcile()
    assert nodes[2].value("select count(*) from acc") == 0


def test_the_server_of_a_move_goes_with_its_last_route(sharded: Nodes) -> None:
    source = sharded[1]
    source.rows("select shardman.make_fresh_server(2, 'shardman_node_2_c7')")
    source.rows("select shardman.make_fresh_server(2, 'shardman_node_2_c8')")
    running = "insert into shardman.cmd_log (id, cmd_type, status) values (%s, 'move_part', 'in progress')"
    source.rows(running, 7)
    source.rows(running, 8)
    sharded.move("acc_1", 1, 2)
    source.alone(
        "drop foreign table acc_1_fdw; select shardman.make_route('acc_1', 'shardman_node_2_c7');"
        " select shardman.attach_route('acc_1')"
    )
    source.receive(("alter table shardman.partitions disable trigger on_metadata", ()))
    sharded.own("acc_1", 2)
    assert source.value(SERVER, "acc_1") == "shardman_node_2_c7"
    source.run("update shardman.cmd_log set status = 'success', ended_at = now() where id = 7")
    assert source.reconcile() == 0
    assert source.value(SERVER, "acc_1") == "shardman_node_2"
    source.reconcile()
    left = source.rows(
        "select srvname from pg_foreign_server where srvname like 'shardman\\_node\\_%%\\_c%%'"
    )
    assert left == [("shardman_node_2_c8",)]
    assert all_rows(sharded)


def test_a_sequence_that_is_lost_comes_back_with_its_range(nodes: Nodes) -> None:
    nodes[1].run("create table acc (id bigserial primary key)")
    nodes.shard("acc", "id")
    node = nodes[2]
    node.alone("drop sequence acc_id_seq cascade")
    assert "sequences are missing" in node.drift()["acc"]
    assert node.reconcile() == 0
    node.alone("alter sequence acc_id_seq minvalue 1 restart 1")
    assert node.reconcile() == 0
    assert node.value("insert into acc default values returning id") > 2**44
    assert node.value("select count(*) from acc") == 1


def test_two_at_once_do_not_disturb_each_other(sharded: Nodes) -> None:
    with sharded[2].connect(autocommit=False) as other:
        other.execute("select shardman.reconcile()")
        begun = time.monotonic()
        assert sharded[2].reconcile() >= 1
        assert time.monotonic() - begun < 10
    assert sharded[2].reconcile() == 0


def test_names_that_need_quotes(nodes: Nodes) -> None:
    nodes[1].run(
        'create schema "My App"; create table "My App"."We.ird ""T""" ("The Key" text primary key, b serial)'
    )
    nodes[1].run(
        """insert into "My App"."We.ird ""T""\" select i::text from generate_series(1, 50) i"""
    )
    nodes.shard('"My App"."We.ird ""T"""', '"The Key"')
    part = '"My App"."We.ird ""T""_1"'
    nodes.move(part, 1, 2)
    nodes.own(part, 2)
    for node in nodes.all:
        assert node.drift() == {}
        assert node.reconcile() == 0
        assert node.value('select count(*) from "My App"."We.ird ""T"""') == 50
        assert node.value(f"select count(*) from {part}") > 0


def test_an_expression_as_key(nodes: Nodes) -> None:
    nodes[1].run("create table acc (name text primary key, b int)")
    nodes[1].run("insert into acc select 'N' || i, i from generate_series(1, 50) i")
    nodes.shard("acc", "lower(name)")
    nodes.move("acc_0", 1, 2)
    nodes.own("acc_0", 2)
    for node in nodes.all:
        assert node.drift() == {}
        assert node.value("select count(*) from acc") == 50
        assert node.value("select sum(b) from acc where lower(name) = 'n7'") == 7


@pytest.fixture
def subscribed(nodes: Nodes) -> Iterator[Nodes]:
    """Node 2 hears of the lord's metadata through a real subscription, as one that was just added."""
    name = f"sub_{next(numbers)}"
    lord, node = nodes[0], nodes[2]
    lord.run(
        f"create publication {name} for table shardman.nodes, shardman.tables, shardman.partitions"
    )
    lord.rows("select pg_create_logical_replication_slot(%s, 'pgoutput')", name)
    node.run("truncate shardman.nodes, shardman.partitions, shardman.tables cascade")
    node.run(
        f"create subscription {name} connection '{lord.dsn}' publication {name}"
        f" with (create_slot = false, slot_name = '{name}')"
    )
    with ExitStack() as stack:
        stack.callback(lord.rows, "select pg_drop_replication_slot(%s)", name)
        # The apply worker is gone before its walsender has heard of it.
        stack.callback(gives, lord, walsenders_of(name), 0)
        stack.callback(node.run, f"drop subscription {name}")
        stack.callback(node.run, f"alter subscription {name} set (slot_name = none)")
        stack.callback(node.run, f"alter subscription {name} disable")
        yield nodes


def walsenders_of(slot: str) -> str:
    """A query for the number of walsenders that a replication slot has (0 or 1)."""
    return f"select count(*) from pg_replication_slots where slot_name = '{slot}' and active"


def gives(node: Node, query: str, wanted: object, seconds: float = 20) -> None:
    """Waits until a query gives what is wanted."""
    eventually(
        f"{query} gives {wanted}",
        lambda: node.value(query),
        until=lambda found: found == wanted,
        seconds=seconds,
        every=0.05,
        after=lambda: node.rows("select * from shardman.drift"),
    )


def test_the_apply_worker_does_all_of_it(subscribed: Nodes) -> None:
    lord, first, node = subscribed[0], subscribed[1], subscribed[2]
    gives(node, "select count(*) from shardman.nodes", 3)
    first.run(
        "create schema app; create table app.acc (name text primary key, at timestamptz default now())"
    )
    first.run("insert into app.acc select i::text from generate_series(1, 30) i")
    receivers = subscribed.all
    subscribed.all = receivers[:2]
    subscribed.shard("app.acc", "name", 8)
    gives(node, "select count(*) from shardman.partitions", 8)
    gives(node, "select count(*) from shardman.drift", 0)
    assert node.value("select count(*) from app.acc") == 30
    subscribed.all = receivers
    subscribed.move("app.acc_3", 1, 2)
    subscribed.own("app.acc_3", 2, 0, 1)
    gives(node, "select owner from shardman.partitions where part_name = 'app.acc_3'", 2)
    gives(node, "select count(*) from shardman.drift", 0)
    assert lord.value("select count(*) from app.acc") == 30
    gives(
        node,
        "select count(*) from pg_stat_subscription_stats where apply_error_count + sync_error_count > 0",
        0,
    )


def test_many_partitions(nodes: Nodes) -> None:
    nodes[1].run("create table acc (name text primary key, b int)")
    found = nodes[1].describe("acc", "name", 1024)
    node = nodes[2]
    node.receive(*table_rows(found, 1024, 1, [f"acc_{k}" for k in range(1024)]))
    assert node.reconcile() == 0
    took = []
    for _ in range(7):
        begun = time.monotonic()
        assert node.reconcile() == 0
        took.append(time.monotonic() - begun)
    assert min(took) < 0.5, took


def test_a_node_in_no_cluster_has_nothing_to_do(server: str) -> None:
    with closing(psycopg.connect(server, autocommit=True)) as admin:
        dbname = f"n{next(numbers)}"
        admin.execute(f"create database {dbname} template shardman_template".encode())
    with closing(psycopg.connect(psycopg.conninfo.make_conninfo(server, dbname=dbname))) as conn:
        assert conn.execute("select shardman.reconcile()").fetchone() == (0,)
        assert conn.execute("select count(*) from shardman.drift").fetchone() == (0,)


def test_a_definition_survives_json(nodes: Nodes) -> None:
    nodes[1].run("create table acc (id int primary key)")
    definition = nodes.shard("acc", "id")
    stored = nodes[2].value("select definition from shardman.tables")
    assert stored == definition
    assert nodes[2].value("select %s::jsonb = definition from shardman.tables", Jsonb(definition))
