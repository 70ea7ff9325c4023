"""An application's role whose first tables were only just shared changes at once what is in no table."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

NODES = (0, 1, 2, 3)


def test_types_are_made_by_who_has_shared_tables_only(cluster: Cluster) -> None:
    """On workers that have just heard of the table."""
    for node in NODES:
        cluster.sql(node, "create role alice login password 'a'")
    cluster.sql(0, "create schema shop authorization alice")
    cluster.sql(0, "insert into shardman.settings values ('new_tables', 'shared')")
    eventually(
        "all have heard of it",
        lambda: all(
            cluster.value(n, "select shardman.setting('new_tables', '')") for n in NODES[1:]
        ),
    )
    dsn = make_conninfo(cluster.dsn(1), user="alice", password="a", options="-c search_path=shop")
    with psycopg.connect(dsn, autocommit=True) as alice:
        alice.execute("create table customers (id int primary key)")
        ready = "select has_table_privilege('alice', 'shardman.ddl', 'insert')"
        eventually("this node lets her in", lambda: cluster.value(1, ready))
        alice.execute("create type mood as enum ('sad', 'ok')")
        alice.execute("alter table customers add column mood mood default 'ok'")
    for node in NODES[1:]:
        assert cluster.value(node, "select 'sad'::shop.mood")


def test_a_table_that_is_renamed_before_it_is_shared(cluster: Cluster) -> None:
    """By the next migration, or in the transaction that makes it. What is in no table is made first, by which
    other nodes see what there is by then."""
    dsn = make_conninfo(cluster.dsn(1), user="alice", password="a", options="-c search_path=shop")
    with psycopg.connect(dsn, autocommit=True) as alice:
        alice.execute("create table versions (id int primary key)")
        alice.execute("create table lines (id int primary key, amount int)")
        with alice.transaction():
            alice.execute("create type size as enum ('s', 'm')")
            alice.execute("alter table lines rename amount to quantity")
            alice.execute("alter table lines rename to order_lines")
            alice.execute("insert into versions values (2)")
        with alice.transaction():
            alice.execute("create table drafts (id int primary key)")
            alice.execute("alter table drafts rename to papers")
    eventually("the lord knows", lambda: not cluster.commands_left())
    shared = "select string_agg(relation, ' ' order by relation) from shardman.shared_tables"
    wanted = "shop.customers shop.order_lines shop.papers shop.versions"
    eventually("all are shared", lambda: cluster.value(0, shared) == wanted)
    for node in NODES[1:]:
        assert cluster.value(node, "select count(quantity) from shop.order_lines") == 0
        assert cluster.value(node, "select id from shop.versions") == 2


def test_a_table_that_is_made_again_and_renamed(cluster: Cluster) -> None:
    """As a migration that was taken back and done again does it."""
    dsn = make_conninfo(cluster.dsn(1), user="alice", password="a", options="-c search_path=shop")
    with psycopg.connect(dsn, autocommit=True) as alice:
        alice.execute("drop table papers")
        alice.execute("create table papers (id int primary key)")
        alice.execute("alter table papers rename to sheets")
    shared = "select count(*) from shardman.shared_tables where relation = 'shop.sheets'"
    eventually("it is shared", lambda: cluster.value(0, shared) == 1)


def test_a_new_table_that_refers_to_one_that_is_made_again(cluster: Cluster) -> None:
    """A migration that is taken back, changed, and done again: the new table stayed on one node, as the one to
    which it refers was only just lying again as before."""
    dsn = make_conninfo(cluster.dsn(1), user="alice", password="a", options="-c search_path=shop")
    with psycopg.connect(dsn, autocommit=True) as alice:
        alice.execute("create table kinds (id int primary key)")
        eventually("it is shared", lambda: not cluster.commands_left())
        alice.execute("drop table kinds")
        alice.execute("create table kinds (id int primary key)")
        alice.execute("create table things (id int primary key, k int references kinds)")
        alice.execute("create table parts (id int primary key, t int references things)")
    for table in ("kinds", "things", "parts"):
        there = f"select count(*) from shardman.shared_copies where relation = 'shop.{table}'"
        eventually(f"{table} is shared", lambda: cluster.value(0, there.encode()) == 3)  # noqa: B023


@pytest.mark.parametrize("uses", ["select from {0}", "insert into {0} values (1)"])
def test_who_uses_a_table_that_is_being_shared_does_not_wait_for_itself(
    cluster: Cluster, uses: str
) -> None:
    """As migrations do that follow at once, and look into their list of migrations before anything else: the
    table is not shared before they end, and no other one is before it."""
    name = uses.split(maxsplit=1)[0] + "_done"
    dsn = make_conninfo(cluster.dsn(1), user="alice", password="a", options="-c search_path=shop")
    with psycopg.connect(dsn, autocommit=True) as alice:
        alice.execute(f"create table {name} (id int primary key)")
        alice.execute(f"create table {name}_more (id int primary key)")
        # It was half a minute.
        alice.execute("set statement_timeout = '20s'")
        with alice.transaction():
            alice.execute(uses.format(name))
            alice.execute(f"alter table {name}_more add column note text")
            alice.execute(f"insert into {name} values (2)")
    eventually("the lord knows", lambda: not cluster.commands_left())
    for node in NODES[1:]:
        found = f"select count(m.note) + count(d.id) from shop.{name} d, shop.{name}_more m"
        eventually(f"node {node} has both", lambda: cluster.sql(node, found.encode()))  # noqa: B023
        assert cluster.value(node, f"select max(id) from shop.{name}".encode()) == 2


def test_what_cannot_be_shared_is_said(cluster: Cluster) -> None:
    dsn = make_conninfo(cluster.dsn(1), user="alice", password="a", options="-c search_path=shop")
    with psycopg.connect(dsn, autocommit=True) as alice:
        said: list[str | None] = []
        alice.add_notice_handler(lambda d: said.append(d.message_primary))
        alice.execute("create table ranges (id int primary key) partition by range (id)")
        alice.execute("create table ranges_1 partition of ranges for values from (1) to (9)")
        alice.execute("create unlogged table cache (id int primary key)")
        alice.execute("create temp table mine (id int primary key)")
    assert said == [
        "shop.ranges is partitioned, and stays on this node",
        "shop.cache is unlogged, and stays on this node",
    ]
