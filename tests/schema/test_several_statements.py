"""Several statements of DDL in one query, as Sequelize and scripts of migrations send them."""

from __future__ import annotations

import psycopg
import pytest

from schema.bob import NODES, WORKERS, as_bob, move_in, value
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

SCHEMA = """
create table land (id int primary key, name text);
create table acc (id int primary key, v int default 0);
create table plain (id int primary key);
insert into acc (id) select generate_series(1, 60);
"""


@pytest.fixture(scope="module")
def acc(cluster: Cluster) -> Cluster:
    commands = (
        "select shardman.create_shared_table('app.land', 1)",
        "select shardman.create_hash_partitions(1, 'app.acc', 'id', 4)",
        "select shardman.set_replevel('app.acc', 1)",
    )
    move_in(cluster, SCHEMA, commands, "acc")
    return cluster


def columns(cluster: Cluster, node: int, table: str) -> object:
    return value(
        cluster,
        node,
        "select string_agg(concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,"
        " pg_get_expr(d.adbin, d.adrelid), col_description(a.attrelid, a.attnum)), ', ' order by a.attname)"
        " from pg_attribute a left join pg_attrdef d on (d.adrelid, d.adnum) = (a.attrelid, a.attnum)"
        f" where a.attrelid = '{table}'::regclass and a.attnum > 0 and not a.attisdropped",
    )


def send(cluster: Cluster, node: int, query: str) -> None:
    with as_bob(cluster, node) as bob:
        bob.execute(query.encode())


@pytest.mark.parametrize("table", ["land", "acc"])
def test_each_of_them_changes_all_nodes(acc: Cluster, table: str) -> None:
    send(
        acc,
        2,
        f"""-- what Sequelize makes of a model; a ';' in what is quoted ends nothing
        begin; set local lock_timeout = '20s';
        alter table {table} add "a;b" varchar(20) /* not; here */ default 'x;''y';
        ALTER TABLE {table} ALTER COLUMN "a;b" SET NOT NULL;
        ALTER TABLE {table} ALTER COLUMN "a;b" TYPE VARCHAR(30);
        create index {table}_ab on {table} ("a;b"); comment on column {table}."a;b" is $x$it's; $$ $x$;
        alter table app.{table} add c text;
        do $$ begin create type app.kind as enum ('a'); exception when duplicate_object then null; end $$;
        alter table {table} rename c to d; commit""",
    )
    for node in NODES if table == "acc" else WORKERS:
        found = str(columns(acc, node, table))
        assert "a;b character varying(30) t 'x;''y'::character varying it's; $$ , d text" in found
        assert value(acc, node, f"select to_regclass('app.{table}_ab') is not null") is True
    send(
        acc, 3, f'drop index {table}_ab; alter table {table} drop "a;b"; alter table {table} drop d'
    )
    assert {str(columns(acc, n, table)).count("text") for n in WORKERS} == {int(table == "land")}


def test_kinds_that_alternate_are_told_apart(acc: Cluster) -> None:
    """The next of a kind is behind what came before it, also if that was of another kind."""
    send(
        acc,
        1,
        """create function app.f() returns int language sql as $$ select 1; $$;
        comment on function app.f() is 'f'; create type app.pair as (a int);
        grant execute on function app.f() to public; grant select on app.acc to public;
        create function app.g() returns int language sql as $$ select 2; $$;
        comment on function app.g() is 'g'; revoke select on app.acc from public;
        create type app.other as (a int);
        alter table app.acc add told int; create function app.h() returns int language sql as 'select 3'""",
    )
    made = (
        "select string_agg(concat_ws(' ', proname, obj_description(oid, 'pg_proc'), prosrc), ',' order by 1)"
        " || to_regtype('app.pair')::text || to_regtype('app.other')::text"
        " from pg_proc where pronamespace = 'app'::regnamespace and proname in ('f', 'g', 'h')"
    )
    assert {value(acc, n, made) for n in NODES} == {
        "f f  select 1; ,g g  select 2; ,h select 3pairother"
    }
    assert all("told int" in str(columns(acc, n, "acc")) for n in NODES)
    public = (
        "select bool_or(starts_with(a::text, '=')) from pg_class, unnest(relacl) a"
        " where oid = 'app.acc'::regclass"
    )
    assert not any(value(acc, n, public) for n in NODES)
    send(acc, 3, "drop function app.f, app.g; drop function app.h; drop type app.pair, app.other")
    send(acc, 3, "alter table acc drop told")


BLOCKS = [
    # Of Rails, of Drizzle, and by hand.
    """DO $$
       BEGIN
         IF NOT EXISTS (
           SELECT 1 FROM pg_type t JOIN pg_namespace n ON t.typnamespace = n.oid
            WHERE t.typname = 'mood' AND n.nspname = ANY (current_schemas(false))
         ) THEN
           CREATE TYPE "mood" AS ENUM ('sad', 'ok');
         END IF;
       END
       $$;""",
    """DO $$ BEGIN
        ALTER TABLE "acc" ADD CONSTRAINT "positive" CHECK (v >= 0);
       EXCEPTION WHEN duplicate_object THEN null;
       END $$;""",
    """-- as needed
       do language plpgsql $x$ begin
         if not exists (select from pg_attribute where attrelid = 'land'::regclass and attname = 'm') then
           alter table land add m mood default 'ok'; -- now
         end if;
       exception when duplicate_column then raise notice 'it is there; or so';
       end; $x$""",
]


def test_a_block_that_does_one_thing_where_it_is_needed(acc: Cluster) -> None:
    for block in BLOCKS * 2:
        send(acc, 2, block)
    for node in NODES:
        assert value(acc, node, "select 'ok'::mood::text") == "ok"
        assert value(acc, node, "select count(*) from pg_constraint where conname = 'positive'")
    assert all("m mood" in str(columns(acc, n, "land")) for n in WORKERS)
    send(
        acc, 3, "alter table land drop m; drop type mood; alter table acc drop constraint positive"
    )


def test_what_stays_on_one_node_says_so(acc: Cluster) -> None:
    with as_bob(acc, 2) as bob:
        said: list[str | None] = []
        bob.add_notice_handler(lambda diag: said.append(diag.message_primary))
        bob.execute("do $$ begin create type app.alone as enum ('a'); perform 1; end $$")
        assert any("only this node has it" in str(each) for each in said)
        bob.execute("drop type app.alone")


def test_one_that_fails_takes_back_the_others(acc: Cluster) -> None:
    before = [columns(acc, n, t) for n in WORKERS for t in ("acc", "land")]
    with pytest.raises(psycopg.errors.DuplicateColumn):
        send(
            acc,
            1,
            "alter table acc add w int; alter table land add w int; alter table acc add w int",
        )
    assert [columns(acc, n, t) for n in WORKERS for t in ("acc", "land")] == before


@pytest.mark.parametrize(
    "query",
    [
        # What it calls may be DDL as well, of which nobody sees the text.
        "select 1; alter table acc add w int",
        "alter table plain add x int; select 1; alter table land add w int",
        "do $$ begin alter table plain add y int; end $$; alter table acc add w int",
        # Of a transaction that has ended nothing is known any more.
        "alter table acc add w int; commit; alter table acc drop w",
        "alter table acc add w int; vacuum plain",
    ],
)
def test_what_may_be_something_else_is_refused(acc: Cluster, query: str) -> None:
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="this node only"):
        send(acc, 1, query)
    assert not any(" w " in f" {columns(acc, n, 'acc')}" for n in NODES)


@pytest.mark.parametrize("table", ["land", "acc"])
@pytest.mark.parametrize(
    "dropping",
    [
        "drop index of_1, of_2",
        "drop index if exists nothing, of_2",
        "do $$ begin perform 1; drop index of_1; end $$",
        "drop statistics told_1, told_2_of_plain",
        "do $$ begin perform 1; drop statistics told_1; end $$",
    ],
)
def test_what_was_made_a_moment_ago_is_not_dropped_on_one_node(
    acc: Cluster, table: str, dropping: str
) -> None:
    """The metadata do not know of it yet."""
    column = {"land": "name", "acc": "v"}[table]
    made = (
        f"create unique index of_1 on {table} (id, {column}); create index of_2 on {table} ({column});"
        f" create statistics told_1 on id, {column} from {table}"
    )
    with as_bob(acc, 2, autocommit=False) as bob:
        bob.execute("create temp table other (a int, b int)")
        bob.execute("create statistics told_2_of_plain on a, b from other")
        bob.execute(made.encode())
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="on this node only"):
            bob.execute(dropping.encode())
    if table == "acc" and "index" in dropping:
        # Nor is that of one partition, by its name.
        with as_bob(acc, 2, autocommit=False) as bob:
            bob.execute(made.encode())
            data = "select c.oid::regclass::text from pg_class c where relname ~ '^of_1_[0-9]$'"
            name = (bob.execute(data).fetchone() or ("",))[0]
            with pytest.raises(psycopg.errors.FeatureNotSupported, match="on this node only"):
                bob.execute(f"drop index {name}".encode())


def test_an_index_is_made_and_dropped_at_once(acc: Cluster) -> None:
    """Before the metadata know of it: replicas lose it as well."""
    send(
        acc,
        2,
        "create index short on acc (v); alter index short rename to shorter; drop index shorter",
    )
    send(acc, 1, "create index short on acc ((v + 1))")
    send(acc, 3, "drop index short")
    for node in NODES:
        assert acc.sql(node, "select indexdef from pg_indexes where indexdef ~ '\\(+v'") == []


@pytest.mark.parametrize(
    ("before", "between"),
    [
        ("select", "create unique index met on acc (id, v)"),
        ("create unique index met on acc (id, v)", "drop index met"),
    ],
)
def test_what_another_has_changed_meanwhile_is_said(
    acc: Cluster, before: str, between: str
) -> None:
    """A transaction whose picture on other nodes is older than a change of the table: it ended as if the table
    had two primary keys, and of one without a key it could have made something else on each node."""
    send(acc, 1, before)
    with as_bob(acc, 2, autocommit=False) as bob:
        bob.execute("create view first as select 1 as a")
        send(acc, 1, between)
        refused = (psycopg.errors.ObjectNotInPrerequisiteState, psycopg.errors.SerializationFailure)
        with pytest.raises(refused, match="since this transaction began on node"):
            bob.execute("create unique index if not exists met on acc (id, v)")
    send(acc, 3, "create unique index if not exists met on acc (id, v)")
    with as_bob(acc, 2, autocommit=False) as bob:
        bob.execute("drop index met")
        bob.execute("create unique index met on acc (id, v)")
        bob.rollback()
        bob.execute("drop index met")
        bob.commit()
    for node in NODES:
        assert acc.sql(node, "select from pg_indexes where indexname ~ '^met'") == []


def test_a_type_with_using_is_refused_with_the_way(acc: Cluster) -> None:
    before = [columns(acc, n, "acc") for n in NODES]
    for changed in ("v type int using v + 1", "b type int using b::int"):
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="USING") as refused:
            send(acc, 2, f"alter table acc add b text; alter table acc alter {changed}")
        assert "USING column::type" in str(refused.value.diag.message_hint)
    send(acc, 2, "alter table acc alter v type bigint using (v::bigint)")
    # The metadata do not know yet from which type it goes back.
    send(acc, 3, "alter table acc alter v type int using (v::int)")
    assert [columns(acc, n, "acc") for n in NODES] == before
    send(acc, 2, "alter table land alter name type varchar(9) using (name::varchar)")


def test_all_nodes_are_alike_afterwards(acc: Cluster) -> None:
    eventually("what was submitted has ended", lambda: not acc.commands_left())
    assert check(acc.lord_dsn, data=True, patience=30) == []
