"""Views, functions, types, domains, schemas and extensions that are made on one node are there on all."""

from __future__ import annotations

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from schema.bob import NODES, as_bob, send
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

OBJECTS = """
select string_agg(what, ', ' order by what collate "C") from (
    select c.relname || ' ' || pg_get_viewdef(c.oid) || coalesce(obj_description(c.oid), '') as what
      from pg_class c where c.relnamespace = 'app'::regnamespace and c.relkind = 'v'
    union all select p.proname || ' ' || p.prosrc from pg_proc p where p.pronamespace = 'app'::regnamespace
    union all select t.typname || t.typtype::text || (select string_agg(enumlabel, '/' order by enumsortorder)
                       from pg_enum where enumtypid = t.oid)
      from pg_type t where t.typnamespace = 'app'::regnamespace and t.typtype = 'e'
    union all select t.typname || pg_get_constraintdef(o.oid) from pg_type t
      join pg_constraint o on o.contypid = t.oid where t.typnamespace = 'app'::regnamespace
    union all select nspname from pg_namespace where nspname !~ '^(pg_|shardman)'
    union all select extname from pg_extension) as u
"""


@pytest.fixture(scope="module")
def acc(cluster: Cluster) -> Cluster:
    for node in NODES:
        cluster.sql(node, "create role bob login password 'b'; create schema app authorization bob")
    with as_bob(cluster, 1) as bob:
        bob.execute("create table acc (id int primary key, v int)")
        bob.execute("insert into acc select i, i from generate_series(1, 30) i")
    done = cluster.cmd("select shardman.create_hash_partitions(1, 'app.acc', 'id', 3)")
    assert done.status == "success", done
    eventually(
        "bob's ways to other nodes are there", lambda: counted(cluster), tolerate=psycopg.Error
    )
    return cluster


def counted(cluster: Cluster) -> bool:
    for node in NODES:
        with as_bob(cluster, node) as bob:
            assert bob.execute("select count(*) from acc").fetchone() == (30,)
            ready = "select has_table_privilege('shardman.ddl', 'insert')"
            assert bob.execute(ready).fetchone() == (True,)
    return True


def everywhere(cluster: Cluster) -> str:
    """What there is, the same on every node."""
    (same,) = {str(cluster.value(n, OBJECTS)) for n in NODES}  # type: ignore[arg-type]
    return same


MADE = [
    ("create type mood as enum ('glad')", "moodeglad"),
    ("alter type mood add value 'sad' before 'glad'", "moodesad/glad"),
    ("alter table acc add column mood mood", ""),
    ("alter type mood add value 'so so'", "sad/glad/so so"),
    ("create domain small as int check (value < 100)", "smallCHECK"),
    (
        "create function twice(int) returns int language sql as $$ select 2 * $1; $$",
        "twice  select 2 * $1; ",
    ),
    (
        "CREATE OR REPLACE FUNCTION twice(int) returns int language sql as 'select $1 + $1'",
        "select $1 + $1",
    ),
    ("alter table acc add constraint below check (twice(v) < 1000)", ""),
    (
        "create or replace function twice(int) returns int language sql as 'select 2 * $1'",
        "twice select 2",
    ),
    ("create procedure nothing() language sql as ''", "nothing"),
    ("/* sums */ create view sums as select mood, sum(v) as s from acc group by 1;", "sums"),
    (
        "create or replace view sums as select mood, sum(v) as s, count(*) as n from acc group by 1",
        "count(*)",
    ),
    ("comment on view sums is 'of all'", "of all"),
    ("alter view sums rename to totals", "totals"),
    ("alter type mood rename to moods", "moodse"),
]
DROPPED = ["drop view if exists totals", "drop procedure nothing", "drop domain small"]


def test_they_are_made_changed_and_dropped_everywhere(acc: Cluster) -> None:
    for i, (statement, there) in enumerate(MADE):
        with as_bob(acc, i % 4) as bob:
            bob.execute(statement.encode())
        assert there in everywhere(acc), statement
    assert acc.sql(3, "select sum(s) from app.totals") == [(465,)]
    for i, statement in enumerate(DROPPED):
        with as_bob(acc, i) as bob:
            bob.execute(statement.encode())
    assert "totals" not in everywhere(acc)
    eventually("what DDL submitted has ended", lambda: not acc.commands_left())
    assert "app.moods" in str(acc.value(0, "select definition from shardman.tables"))
    assert check(acc.lord_dsn) == []
    acc.sql(2, "create schema more")
    acc.sql(3, "create extension citext schema more")
    assert "citext" in everywhere(acc)
    acc.sql(0, "drop extension citext")
    acc.sql(1, "drop schema more")
    assert "more" not in everywhere(acc)


def test_a_schema_goes_with_what_is_in_it(acc: Cluster) -> None:
    before = everywhere(acc)
    acc.sql(
        1,
        """create schema "The Rest"; create schema extra;
        create domain "The Rest".small as int;
        create function "The Rest".less("The Rest".small) returns int language sql as $$ select $1 - 1; $$;
        create view "The Rest".one as select "The Rest".less(1) as a;
        create view extra.two as (select * from "The Rest".one);
        create type extra.span as range (subtype = int)""",
    )
    assert acc.sql(3, 'select a from "The Rest".one') == [(0,)]
    assert "extra" in everywhere(acc)
    acc.sql(2, 'DROP SCHEMA IF EXISTS nothing, "The Rest", extra CASCADE')
    assert everywhere(acc) == before


def test_rows_that_only_another_node_has_do_not_go_with_a_schema(acc: Cluster) -> None:
    acc.sql(1, "create schema kept")
    acc.sql(3, "create table kept.mine as select 1 as a")
    with pytest.raises(psycopg.errors.DependentObjectsStillExist, match="node 3 has more in the"):
        acc.sql(2, "drop schema kept cascade")
    assert acc.sql(3, "select a from kept.mine") == [(1,)]
    # His own, where he says so, as on one server.
    acc.sql(3, "drop schema kept cascade")
    assert "kept" not in everywhere(acc)


def test_in_the_callers_transaction(acc: Cluster) -> None:
    before = everywhere(acc)
    with as_bob(acc, 2, autocommit=False) as bob:
        bob.execute("create view gone as select 1 as a")
        bob.execute("savepoint s")
        bob.execute("create type gone_too as enum ('a')")
        bob.execute("rollback to s")
        bob.rollback()
    assert everywhere(acc) == before


def test_a_check_of_a_domain_means_the_same_everywhere(acc: Cluster) -> None:
    with as_bob(acc, 1) as bob:
        bob.execute("create domain moment as timestamptz")
        bob.execute("alter table acc add column at moment")
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="TimeZone"):
            bob.execute("alter domain moment add check (extract(hour from value) < 8)")
        bob.execute("alter domain moment add check (value > '2000-01-01 00:00+00')")
        bob.execute("alter table acc drop column at")
        bob.execute("drop domain moment")
    eventually("what DDL submitted has ended", lambda: not acc.commands_left())


def test_what_some_nodes_have_is_made_on_the_others(acc: Cluster) -> None:
    acc.sql(3, "set shardman.ddl = 'here'; create schema half; create type half.way as enum ('a')")
    said: list[str] = []
    with acc.connect(1) as one:
        one.add_notice_handler(lambda n: said.append(str(n.message_primary)))
        one.execute("create schema half")
        one.execute("create type half.way as enum ('a')")
    assert [s.partition(":")[0] for s in said] == ["node 3 is left as it is"] * 2
    assert "half" in everywhere(acc)
    acc.sql(2, "drop type half.way")
    acc.sql(2, "drop schema half")


def test_a_type_with_using_that_only_casts_is_changed_everywhere(acc: Cluster) -> None:
    columns = """
        select string_agg(attname || ' ' || format_type(atttypid, atttypmod)
                          || case when attnotnull then '!' else '' end, ', ' order by attname)
          from pg_attribute where attrelid = 'app.acc'::regclass and attname ~ '^w[0-9]'"""

    def told() -> set[object]:
        return {acc.value(n, columns) for n in NODES}

    with as_bob(acc, 1) as bob:
        bob.execute("alter table acc add w1 int default 7, add w2 varchar(9) default 'x'")
    with as_bob(acc, 2, autocommit=False) as bob:
        # As Django writes it.
        bob.execute('ALTER TABLE "acc" ALTER COLUMN "w1" TYPE bigint USING "w1"::bigint')
        bob.rollback()
    assert told() == {"w1 integer, w2 character varying(9)"}
    with as_bob(acc, 3) as bob:
        bob.execute(
            'ALTER TABLE "acc" ALTER COLUMN "w1" TYPE numeric(8, 2) USING "w1"::numeric(8, 2),'
            ' ALTER COLUMN "w1" SET NOT NULL'
        )
        bob.execute("alter table acc alter w2 type text using (w2::text)")
        assert bob.execute("select distinct w1::text, w2 from acc").fetchall() == [("7.00", "x")]
        bob.execute("update acc set w2 = 'long'")
        with pytest.raises(psycopg.errors.StringDataRightTruncation):
            bob.execute("alter table acc alter w2 type varchar(2) using w2::varchar(2)")
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="in one statement with"):
            bob.execute("alter table acc alter w1 type int using w1::int, add unique (id, w1)")
    assert told() == {"w1 numeric(8,2)!, w2 text"}
    with as_bob(acc, 2) as bob:
        bob.execute("alter table acc drop w1, drop w2")
    eventually("what was submitted has ended", lambda: not acc.commands_left())
    assert check(acc.lord_dsn, data=True) == []


def test_what_is_made_of_a_shared_table_is_on_all_workers(acc: Cluster) -> None:
    before = everywhere(acc)
    with as_bob(acc, 1) as bob:
        bob.execute("create table colours (id int primary key, name text)")
    done = acc.cmd("select shardman.create_shared_table('app.colours', 1)")
    assert done.status == "success", done
    views = "select to_regclass('app.tinted')::text, to_regclass('app.dyed')::text"

    def made() -> list[object]:
        return [acc.sql(n, views)[0] for n in NODES]

    with as_bob(acc, 2) as bob:
        bob.execute(
            "create view tinted as select a.id, c.name from acc a join colours c using (id)"
        )
        bob.execute("alter view tinted rename to dyed")
        bob.execute("comment on view dyed is 'both'")
    assert made() == [(None, None), *[(None, "app.dyed")] * 3]
    # Of a node that is not to have it nobody says that it lacks something.
    assert acc.sql(0, "select * from shardman.pending_changes") == []
    with as_bob(acc, 3) as bob:
        bob.execute("drop view dyed")
        bob.execute("drop table colours")
    assert made() == [(None, None)] * 4
    assert everywhere(acc) == before


def test_what_is_of_one_node_stays_there_and_says_so(acc: Cluster) -> None:
    before = everywhere(acc)
    said: list[str] = []
    with as_bob(acc, 2) as bob:
        bob.add_notice_handler(lambda n: said.append(str(n.message_primary)))
        bob.execute("create table plain (id int)")
        bob.execute("create view of_plain as select * from plain")
        assert len(said) == 1
        assert "only this node has it: node 1: relation" in said[0], said
        bob.execute("create temp view t as select 1 as a; drop view t")
        bob.execute("create temp view t as select 1 as a")
        bob.execute("drop view t")
        bob.execute(
            "set shardman.ddl = 'here'; create view lone as select 1 as a; reset shardman.ddl"
        )
        assert acc.value(2, "select to_regclass('app.lone') is not null")
        bob.execute("drop view lone")
        bob.execute("drop view of_plain")
        bob.execute("drop table plain")
    assert everywhere(acc) == before
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction, match="lord's database"):
        acc.sql(1, "insert into shardman.settings values ('spread_ddl', 'none')")
    acc.sql(0, "insert into shardman.settings values ('spread_ddl', 'other, one')")
    eventually(
        "the setting is there",
        lambda: acc.value(
            1, "select not shardman.spreads_schema('app') and shardman.spreads_schema('one')"
        ),
    )
    with as_bob(acc, 1) as bob:
        bob.execute("create view lone as select 1 as a")
        assert acc.value(2, "select to_regclass('app.lone') is null")
        with pytest.raises(psycopg.Error, match=r"app\.acc uses this"):
            bob.execute("alter type moods add value 'x'")
        bob.execute("drop view lone")
    acc.sql(0, "delete from shardman.settings where name = 'spread_ddl'")
    eventually("the setting is gone", lambda: acc.value(1, "select shardman.spreads_schema('app')"))


def test_what_sharded_tables_use_is_the_same_everywhere(acc: Cluster) -> None:
    before = everywhere(acc)
    acc.sql(3, "create role carol; grant create, usage on schema app to carol")
    acc.sql(3, "set shardman.ddl = 'here'; alter type app.moods owner to carol")
    for node, statement, said in (
        (
            1,
            "do $$ begin alter type app.moods add value 'x'; perform 1; end $$",
            "app.acc uses this",
        ),
        (3, "set role carol; alter type app.moods add value 'x'", "app.acc uses this"),
        (1, "alter schema app rename to b", "cannot be renamed"),
        (1, "drop type app.moods cascade", "would drop its table column"),
        (1, "drop function app.twice cascade", "would drop its table constraint"),
        (2, "drop function app.twice", "other objects depend on it"),
        (2, "create extension no_such", "not available"),
    ):
        with pytest.raises(psycopg.Error, match=said):
            acc.sql(node, statement.encode())  # type: ignore[arg-type]
    assert everywhere(acc) == before
    items = "select item from shardman.schema_items() where aspect in ('types', 'functions')"
    for lone in (
        "alter type app.moods add value 'mine'",
        "create or replace function app.twice(int) returns int language sql as 'select 3'",
    ):
        with acc.connect(3, options="-c shardman.ddl=here") as node, node.transaction() as change:
            node.execute(lone)  # type: ignore[call-overload]
            seen = node.execute(items).fetchall()
            assert sorted(seen) != sorted(acc.sql(1, items)), lone  # type: ignore[arg-type]
            raise psycopg.Rollback(change)
    acc.sql(3, "set shardman.ddl = 'here'; alter type app.moods owner to bob")
    acc.stop_node(1)
    try:
        with as_bob(acc, 2) as bob, pytest.raises(psycopg.Error, match="node 1 cannot be reached"):
            bob.execute("create view no as select 1 as a")
    finally:
        acc.start_node(1)
    assert everywhere(acc) == before
    # What a role says of itself moves nobody with the cluster's rights.
    acc.sql(
        1, "create role mallory login password 'm'; grant create, usage on schema app to mallory"
    )
    left = acc.value(0, "select count(*) from shardman.commands")
    with psycopg.connect(
        make_conninfo(acc.dsn(1), user="mallory", password="m"), autocommit=True
    ) as m:
        m.execute("create type app.hers as enum ('a')")
        m.execute(
            "set shardman.ddl_other = 'ALTER TYPE'; set shardman.ddl_nodes = '';"
            "set shardman.ddl_using = 'app.acc'"
        )
        m.execute("alter type app.hers rename to hers2")
        m.execute("drop type app.hers2")
    assert acc.value(0, "select count(*) from shardman.commands") == left
    assert everywhere(acc) == before


RIGHTS = """
select string_agg(what, ', ' order by what collate "C") from (
    select c.relname || ' ' || c.relacl::text as what from pg_class c
     where c.relnamespace = 'rights'::regnamespace and c.relkind in ('v', 'S')
    union all select p.proname || ' ' || p.proacl::text from pg_proc p
     where p.pronamespace = 'rights'::regnamespace
    union all select t.typname || ' ' || t.typacl::text from pg_type t
     where t.typnamespace = 'rights'::regnamespace
    union all select nspname || ' ' || nspacl::text from pg_namespace where nspname = 'rights'
    union all select 'default ' || defaclobjtype::text || ' ' || defaclacl::text from pg_default_acl
     where defaclnamespace = 'rights'::regnamespace) as u
"""


def test_rights_on_what_is_in_no_table_are_the_same_everywhere(acc: Cluster) -> None:
    def same() -> str:
        found = [str(acc.value(n, RIGHTS)) for n in NODES]
        assert set(found) == {found[0]}, found
        return found[0]

    for node in NODES:
        acc.sql(node, "create role clerk")
    acc.sql(1, "create schema rights authorization bob")
    with as_bob(acc, 2) as bob:
        bob.execute("set search_path = rights, app")
        for statement in (
            'create view "To, see" as select id from acc',
            "create function doubled(a int, b text default '') returns int language sql as 'select 2 * a'",
            "create type mood as enum ('fine')",
        ):
            bob.execute(statement)
        before = same()
        for statement, undo in (
            (
                'grant select on "To, see" to clerk',
                'revoke select on table rights."To, see" from clerk',
            ),
            (
                "grant execute on function rights.doubled(int, text) to clerk with grant option",
                "revoke all on function doubled from clerk",
            ),
            ("grant usage on type mood to clerk", "revoke usage on type rights.mood from clerk"),
            ("grant usage on schema rights to clerk", "revoke usage on schema rights from clerk"),
            (
                "alter default privileges in schema rights grant select on tables to clerk",
                "alter default privileges in schema rights revoke select on tables from clerk",
            ),
            (
                "grant all on all routines in schema rights to clerk",
                "revoke all on all routines in schema rights from clerk",
            ),
        ):
            bob.execute(statement)
            assert same() != before, statement
            assert "clerk" in same(), statement
            bob.execute(undo)
            assert "clerk" not in same(), undo
        with bob.transaction(force_rollback=True):
            bob.execute('grant select on "To, see" to clerk')
        assert "clerk" not in same()
        # What all roles have by themselves is taken on all nodes too.
        bob.execute("revoke execute on function doubled from public")
        assert "doubled {bob=X/bob}" in same()
        bob.execute("set shardman.ddl = 'here'")
        bob.execute('grant select on "To, see" to clerk')
        assert "clerk" in str(acc.value(2, RIGHTS))
        assert "clerk" not in str(acc.value(1, RIGHTS))
        bob.execute('drop view "To, see"; reset shardman.ddl')
        bob.execute('drop view if exists "To, see"')
    # The caller's rights decide on each node, and PostgreSQL's own functions are each server's.
    acc.sql(1, "grant execute on function pg_catalog.pg_sleep(float8) to clerk")
    asked = "select proacl is null from pg_proc where proname = 'pg_sleep'"
    assert [acc.value(n, asked) for n in NODES] == [True, False, True, True]


def test_who_owns_only_shared_tables(acc: Cluster) -> None:
    """What he made before he had one comes to the workers with it; later DDL of his goes there, and not to the
    lord, which has no table of his."""
    workers = NODES[1:]

    def carl(node: int, *statements: str) -> bool:
        with psycopg.connect(make_conninfo(acc.dsn(node), user="carl", password="c")) as conn:
            for statement in statements:
                conn.execute(statement.encode())
        return True

    for node in NODES:
        acc.sql(node, "create role carl login password 'c'")
    acc.sql(1, "create schema its authorization carl")
    carl(
        1,
        "create table its.t (id int primary key)",
        "create type its.pair as (a int, b int)",
        "create function its.before(its.t, its.pair) returns int language sql as 'select 1'",
    )
    done = acc.cmd("select shardman.create_shared_table('its.t', 1)")
    assert done.status == "success", done
    # Its arguments' types came with it; what needs the table came with the next one.
    carl(1, "create table its.u (id int primary key)")
    done = acc.cmd("select shardman.create_shared_table('its.u', 1)")
    assert done.status == "success", done
    found = (
        "select array_agg(proname order by 1)::text from pg_proc"
        " where pronamespace = 'its'::regnamespace and proname !~ 'shared'"
    )
    for node in workers:
        assert acc.value(node, found) == "{before}"
    eventually(
        "carl's ways to other nodes are there",
        lambda: carl(
            2, "create or replace function its.after() returns int language sql as 'select 2'"
        ),
        tolerate=psycopg.Error,
    )
    carl(3, "create view its.v as select * from its.t", "drop view its.v")
    for node in workers:
        assert acc.value(node, found) == "{after,before}"
    for table in ("t", "u"):
        done = acc.cmd("select shardman.drop_table(%s)", (f"its.{table}",))
        assert done.status == "success", done
    for node in NODES:
        acc.sql(node, "set shardman.ddl = 'here'; drop schema its cascade")
    assert check(acc.lord_dsn) == []


def test_what_another_node_has_otherwise_by_that_name_is_refused(acc: Cluster) -> None:
    kinds = {1: "'a', 'b'", 3: "'b', 'a'"}
    for node, labels in kinds.items():
        here = f"set shardman.ddl = 'here'; create type app.kind as enum ({labels})"
        acc.sql(node, here.encode())  # type: ignore[arg-type]
    with as_bob(acc, 1) as bob:
        bob.execute("create table kinds (id int primary key, kind kind)")
        otherwise = pytest.raises(
            psycopg.errors.ObjectNotInPrerequisiteState, match=r"node 3 has type app\.kind"
        )
        with otherwise:
            bob.execute("alter table acc add column kind kind[]")
    done = acc.cmd("select shardman.create_hash_partitions(1, 'app.kinds', 'id', 3)")
    assert done.code == "name_taken", done
    assert "('b', 'a')" in str(done.error)
    # Not on the second node, which would have it by now.
    assert not acc.value(2, "select to_regtype('app.kind')")
    acc.sql(3, "set shardman.ddl = 'here'; drop type app.kind")
    done = acc.cmd("select shardman.create_hash_partitions(1, 'app.kinds', 'id', 3)")
    assert done.status == "success", done
    send(acc, 2, "alter table acc add column kind kind[]", "drop table kinds")
    send(acc, 3, "alter table acc drop column kind", "drop type kind")


MOMENTS = [
    "alter table acc add column at timestamptz default 'now'",
    "alter table acc add column at date default '2020-01-01', add check (at < 'Today'::date)",
    "create index on acc (v) where day > 'yesterday'",
    "create policy late on acc using (day < 'tomorrow'::date)",
    "alter table small_one add column at timestamptz not null default 'today 12:00'",
]


def test_a_moment_in_quotes_is_refused(acc: Cluster) -> None:
    send(acc, 1, "alter table acc add column day date default '2020-01-01'")
    send(acc, 1, "create table small_one (id int primary key)")
    done = acc.cmd("select shardman.create_shared_table('app.small_one', 1)")
    assert done.status == "success", done
    for node, statement in enumerate(MOMENTS):
        with (
            as_bob(acc, node % 3 + 1) as bob,
            pytest.raises(psycopg.errors.FeatureNotSupported) as no,
        ):
            bob.execute(statement.encode())
        assert "a quoted 'now'" in str(no.value), statement
    # Text it may be.
    text = (
        "alter table acc add column till date default '2020-01-01',"
        " add column time text default 'today' check (time in ('now', 'today'))"
    )
    send(acc, 2, text, "alter table acc drop column till, drop column time, drop column day")
    send(acc, 3, "drop table small_one")


def test_an_index_of_that_name_on_another_table_is_left_alone(acc: Cluster) -> None:
    send(acc, 1, "create table pairs (id int primary key, v int)")
    done = acc.cmd("select shardman.create_hash_partitions(1, 'app.pairs', 'id', 2)")
    assert done.status == "success", done
    send(acc, 1, "create index named on pairs (v)")
    here = "set shardman.ddl = 'here';"
    aside = "create table app.aside (a int); create index named on app.aside (a)"
    acc.sql(2, f"{here} drop index app.named; {aside}".encode())  # type: ignore[arg-type]
    another = psycopg.errors.ObjectNotInPrerequisiteState
    for statement in ("drop index named", "alter index named rename to n"):
        with as_bob(acc, 3) as bob, pytest.raises(another, match=r"node 2 .*app\.aside"):
            bob.execute(statement.encode())
    acc.sql(2, f"{here} drop table app.aside".encode())  # type: ignore[arg-type]
    send(acc, 1, "drop table pairs")
    eventually("what DDL submitted has ended", lambda: not acc.commands_left())
    assert check(acc.lord_dsn) == []


@pytest.mark.pg(17)
def test_a_reindex_that_would_do_nothing_is_refused(acc: Cluster) -> None:
    send(acc, 1, 'create index "Named" on acc (v)', "create table lone (id int primary key)")
    for way in ('index "Named"', '(verbose) index app."Named"', "index concurrently acc_pkey"):
        with (
            as_bob(acc, 3) as bob,
            pytest.raises(psycopg.errors.FeatureNotSupported, match="stands for those") as no,
        ):
            bob.execute(f"reindex {way}".encode())
        assert "REINDEX TABLE app.acc" in str(no.value)
    send(acc, 1, "reindex table acc", "reindex index concurrently lone_pkey", "drop table lone")
    send(acc, 2, 'drop index "Named"')
