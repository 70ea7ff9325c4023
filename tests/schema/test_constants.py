"""DDL means on all nodes what it means in the session that sends it: which day 02/03/2019 is, when midnight."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from schema.bob import NODES, WORKERS, as_bob, move_in, ok, value
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

CATALOGS = (Path(__file__).parent / "twins.sql").read_text()
SCHEMA = """
create table land (code text primary key, since date);
insert into land select 'c' || i, date '2019-01-01' + i from generate_series(0, 9) i;
create table acc (id int primary key, d date, at timestamptz, name text, v int);
insert into acc
select i, date '2019-01-01' + i, timestamptz '2020-01-30 00:00+00' + i * interval '1 h', 'n' || i, i
  from generate_series(1, 60) i;
"""
DAYS, ZONE, NULLS, SIGNS, BODIES = (
    "set datestyle = 'SQL, DMY'",
    "set timezone = 'Asia/Kolkata'; set datestyle = 'SQL'",
    "set transform_null_equals = on",
    "set intervalstyle = 'sql_standard'",
    "set check_function_bodies = off",
)
#: What a session has set, and what it sends then.
SENT = (
    (DAYS, "alter table acc add constraint later check (d > '02/03/2018') not valid"),
    (DAYS, "alter table acc validate constraint later"),
    (DAYS, "alter table acc alter d set default '02/03/2019'"),
    (DAYS, "alter table acc add e date default '02/03/2019', add unique (id, d)"),
    (DAYS, "create index acc_old on acc (v) where d < '02/03/2019'"),
    (DAYS, "create unique index acc_new on acc (id, v) where d > '02/03/2019'"),
    (DAYS, "alter index acc_new rename to acc_newer"),
    (DAYS, "create view march as select id from acc where d = '02/03/2019'"),
    (DAYS, "create domain day as date check (value > '02/03/2019')"),
    (DAYS, "create function day_of() returns date language sql return '02/03/2019'::date"),
    (DAYS, "alter table land alter since set default '02/03/2019'"),
    (DAYS, "alter table land add constraint late check (since < '02/03/2119')"),
    (DAYS, "alter table land add born date not null default '02/03/2019'"),
    (ZONE, "alter table acc alter at set default '01/02/2020 00:00'"),
    (ZONE, "alter table acc add told timestamptz default '01/02/2020 00:00', add unique (id, at)"),
    (ZONE, "create unique index acc_then on acc (id, at) where at > '01/02/2020 00:00'"),
    (ZONE, "create view since as select id from acc where at > '01/02/2020 00:00'"),
    (NULLS, "create view nameless as select id from acc where name = null"),
    (NULLS, "create unique index acc_named on acc (id, name) where name = null"),
    (SIGNS, "create view span as select interval '-1 2:03' as s"),
    (SIGNS, "alter table acc add waits interval default '-1 2:03'"),
    (BODIES, "create function f() returns int language sql as 'select x from later'"),
    ("set array_nulls = off", "alter table acc add tags text[] default '{NULL}'"),
)  # fmt: skip


@pytest.fixture(scope="module")
def acc(cluster: Cluster) -> Cluster:
    commands = (
        "select shardman.create_shared_table('app.land', 1)",
        "select shardman.create_hash_partitions(1, 'app.acc', 'id', 6)",
        "select shardman.set_replevel('app.acc', 1)",
    )
    move_in(cluster, SCHEMA, commands, "acc")
    cluster.sql(1, "create database plain")
    with plain(cluster) as one:
        one.execute("create schema app; create role reader")
        one.execute(SCHEMA.encode())
    return cluster


def plain(cluster: Cluster) -> psycopg.Connection[tuple[object, ...]]:
    options = {"dbname": "plain", "options": "-c search_path=app", "autocommit": True}
    return psycopg.connect(cluster.dsn(1), **options)  # type: ignore[arg-type]


def catalogs(conn: psycopg.Connection[tuple[object, ...]]) -> set[str]:
    conn.execute("set search_path = public; set datestyle = 'ISO'; set timezone = 'UTC'")
    found = conn.execute(CATALOGS.encode(), {"schemas": ["app"], "shared": "land"})
    # Who owns them, and may use them, is not asked here.
    return {str(r[0]) for r in found if not str(r[0]).startswith(("table ", "trigger "))}


def settled(cluster: Cluster) -> None:
    eventually("what was submitted has ended", lambda: not cluster.commands_left())
    assert check(cluster.lord_dsn, data=True, patience=30) == []
    for node in NODES:
        assert cluster.sql(node, "select * from shardman.changed_constraints") == []


def test_constants_are_the_senders_on_all_nodes(acc: Cluster) -> None:
    with plain(acc) as one:
        for n, (settings, statement) in enumerate(SENT):
            with as_bob(acc, WORKERS[n % 3]) as bob:
                bob.execute(settings.encode())
                bob.execute(statement.encode())
            one.execute((settings + ";" + statement).encode())
            one.execute("reset all; set search_path = app")
        expected = catalogs(one)
    settled(acc)
    for node in WORKERS:
        with acc.connect(node) as conn:
            found = catalogs(conn)
        assert (found - expected, expected - found) == (set(), set()), f"node {node}"
        for view in ("march", "since", "nameless"):
            rows = f"select coalesce(array_agg(id order by id), '{{}}') from app.{view}"
            with plain(acc) as one:
                assert [(value(acc, node, rows),)] == one.execute(rows.encode()).fetchall(), view
    part = acc.value(0, "select min(part_name) from shardman.partitions where relation = 'app.acc'")
    copies = acc.sql(0, "select owner from shardman.partitions where part_name = %s", (part,))
    # What is made by the metadata means the same.
    free = next(n for n in WORKERS if (n,) not in copies)
    ok(acc, "select shardman.move_part(%s, %s)", part, free)
    settled(acc)


def test_dates_are_dates_behind_ddl_in_its_transaction(acc: Cluster) -> None:
    days = "select array_agg(d::text order by id) from acc where id > 60"
    with as_bob(acc, 2, autocommit=False) as bob:
        bob.execute("set datestyle = 'SQL, DMY'")
        bob.execute("alter table acc add n int")
        bob.execute("insert into acc (id, d) select i, '03/04/2021' from generate_series(61, 70) i")
        assert bob.execute(days).fetchone() == (["03/04/2021"] * 10,)
    for node in WORKERS:
        assert value(acc, node, days) == ["2021-04-03"] * 10
    settled(acc)
    with as_bob(acc, 1) as bob:
        bob.execute("delete from acc where id > 60")


def test_backslashes_of_who_reads_them_otherwise_are_refused(acc: Cluster) -> None:
    with as_bob(acc, 1) as bob:
        bob.execute("set standard_conforming_strings = off; set escape_string_warning = off")
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="standard_conforming_strings"):
            bob.execute(r"create view back as select 'a\\b' as a")
    settled(acc)
