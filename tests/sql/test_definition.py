"""All that belongs to a table is there again on its partitions, on every node."""

from __future__ import annotations

from itertools import pairwise

import pytest
from psycopg import errors
from psycopg.types.json import Jsonb

from sql.databases import Node, Nodes, numbers

RICH = """
create schema app;
create type app.mood as enum ('sad', 'ok');
create domain app.pos as int check (value > 0);
create table app.orders (
    gone int,
    id bigserial,
    "We ird" text collate "C" not null,
    qty app.pos default 5,
    m app.mood default 'ok',
    n int generated always as identity,
    dbl int generated always as (qty * 2) stored,
    price numeric(10,2),
    at timestamptz default '2020-01-01 00:00:00+00',
    tags text[],
    c varchar(5),
    constraint qty_ok check (qty < 1000),
    constraint own check (price >= 0) no inherit,
    primary key (id, "We ird") include (qty) with (fillfactor = 50),
    unique ("We ird", id, n)
) with (fillfactor = 70, toast.autovacuum_enabled = false);
alter table app.orders drop column gone;
alter table app.orders alter c set storage external, alter at set statistics 500;
alter table app.orders alter id set (n_distinct = -0.5);
create index on app.orders (lower("We ird") text_pattern_ops) where qty > 3;
create index tags_gin on app.orders using gin (tags) with (fastupdate = off);
create unique index on app.orders ("We ird") include (at);
create index at_brin on app.orders using brin (at);
create statistics app.st (ndistinct) on id, qty from app.orders;
create statistics app.st_two on (lower("We ird")), n from app.orders;
create statistics app.st_one on (id + 1) from app.orders;
alter statistics app.st_one set statistics 77;
comment on table app.orders is 'it''s orders';
comment on column app.orders.id is 'the id';
comment on constraint qty_ok on app.orders is 'ok?';
comment on constraint orders_pkey on app.orders is 'pk';
comment on index app.at_brin is 'brin';
comment on statistics app.st is 'stat';
insert into app.orders ("We ird", tags) select i::text, array['x'] from generate_series(1, 200) i;
"""
TYPES = """
create schema if not exists app;
create type app.mood as enum ('sad', 'ok');
create domain app.pos as int check (value > 0);
"""

COLUMNS = """
select attname, format_type(atttypid, atttypmod), attcollation::regcollation::text, attnotnull,
       attgenerated::text, pg_get_expr(adbin, adrelid), attstorage::text, col_description(attrelid, attnum)
  from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum
 where attrelid = shardman.find_relation(%s) and attnum > 0 and not attisdropped order by attnum
"""
INDEXES = """
select regexp_replace(pg_get_indexdef(i.indexrelid), '^.* USING', ''), i.indisprimary, i.indisunique,
       i.indimmediate,
       coalesce(obj_description(o.oid, 'pg_constraint'), obj_description(i.indexrelid, 'pg_class'))
  from pg_index i left join pg_constraint o on o.conindid = i.indexrelid
 where i.indrelid = shardman.find_relation(%s) order by 1
"""
STATISTICS = """
select pg_get_statisticsobjdef_columns(oid), array(select unnest(stxkind) order by 1)::text,
       nullif(to_jsonb(s) ->> 'stxstattarget', '-1'), obj_description(oid, 'pg_statistic_ext')
  from pg_statistic_ext s where stxrelid = shardman.find_relation(%s) order by 1
"""
STORAGE = """
select c.reloptions, t.reloptions,
       array(select concat_ws(' ', a.attname, nullif(to_jsonb(a) ->> 'attstattarget', '-1'), o)
               from pg_attribute a
               left join unnest(a.attoptions) o on o like 'n_distinct%%'
              where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by 1)
  from pg_class c left join pg_class t on t.oid = c.reltoastrelid
 where c.oid = shardman.find_relation(%s)
"""
CHECKS = """
select conname, pg_get_constraintdef(oid), obj_description(oid, 'pg_constraint')
  from pg_constraint
 where conrelid = shardman.find_relation(%s) and contype = 'c' and conname <> 'shardman_partition'
 order by 1
"""


def test_everything_is_carried_to_every_node(nodes: Nodes) -> None:
    first, second = nodes[1], nodes[2]
    first.run(RICH)
    for other in (nodes[0], second):
        other.run(TYPES)
    looked = {
        q: first.rows(q, "app.orders") for q in (COLUMNS, INDEXES, STATISTICS, STORAGE, CHECKS)
    }
    nodes.shard("app.orders", '"We ird"')
    nodes.move("app.orders_2", 1, 2)
    nodes.own("app.orders_2", 2)
    for node, part in ((first, "app.orders_1_data"), (second, "app.orders_2_data")):
        assert node.rows(INDEXES, part) == looked[INDEXES]
        assert node.rows(STATISTICS, part) == looked[STATISTICS]
        assert node.rows(STORAGE, part) == looked[STORAGE]
        checks = [c[:2] for c in node.rows(CHECKS, part)]
        assert checks == [c[:2] for c in looked[CHECKS]]
    plain = [c for c in looked[COLUMNS] if c[0] != "n"]
    for written, node in enumerate(nodes.all):
        assert node.drift() == {}
        assert [c for c in node.rows(COLUMNS, "app.orders") if c[0] != "n"] == plain
        assert node.value("select obj_description('app.orders'::regclass)") == "it's orders"
        assert ("qty_ok", "ok?") in [(c[0], c[2]) for c in node.rows(CHECKS, "app.orders")]
        assert node.value("select count(*) from app.orders") == 200 + written
        with pytest.raises(errors.CheckViolation):
            node.run("""insert into app.orders ("We ird", qty) values ('bad', 1001)""")
        row = node.rows(
            """insert into app.orders ("We ird") values (%s) returning qty, dbl""", f"new {node.id}"
        )
        assert row == [(5, 10)]


def test_sequences_never_meet(nodes: Nodes) -> None:
    nodes[1].run(
        "create table acc (id bigserial primary key, n int generated by default as identity, s smallserial)"
    )
    nodes[1].run("insert into acc (s) select 1 from generate_series(1, 50)")
    nodes.shard("acc", "id")
    for column in ("id", "n", "s"):
        ranges = []
        for node in nodes.all:
            seq = node.value("select pg_get_serial_sequence('acc', %s)", column)
            assert seq == f"public.acc_{column}_seq"
            ranges += node.rows(
                "select seqmin, seqmax from pg_sequence where seqrelid = %s::regclass", seq
            )
        ranges.sort()
        assert ranges[0][0] > 50
        assert all(a[1] < b[0] for a, b in pairwise(ranges)), ranges
    for node in nodes.all:
        for _ in range(3):
            node.run("insert into acc default values")
    assert nodes[0].rows("select count(*), count(distinct id), count(distinct n) from acc") == [
        (59, 59, 59)
    ]


def test_an_int_sequence_stays_in_its_type_and_ends_plainly(nodes: Nodes) -> None:
    nodes[1].run("create table acc (id serial primary key)")
    definition = nodes.shard("acc", "id")
    (spec,) = definition["sequences"]
    assert spec["base"] + 100 * spec["width"] <= 2**31 - 1
    nodes[2].run("update shardman.local set node_id = 150")
    with pytest.raises(errors.SequenceGeneratorLimitExceeded, match="no numbers left for node 150"):
        nodes[2].rows("select shardman.make_sequence(%s, 'other')", Jsonb(spec))


def test_privileges_and_owner_on_every_node(nodes: Nodes) -> None:
    admin = nodes[1]
    owner, user = f"owner_{next(numbers)}", f"user_{next(numbers)}"
    admin.run(f"create role {owner}; create role {user}")
    admin.run(
        "create schema app; create table app.acc"
        " (id int primary key, n int generated always as identity, v int)"
    )
    admin.run(f"alter table app.acc owner to {owner}; grant usage on schema app to {user}")
    admin.run(
        f"grant select on app.acc to {user} with grant option; grant update (v), insert on app.acc to {user}"
    )
    nodes.shard("app.acc", "id")
    for node in nodes.all:
        assert node.drift() == {}
        for relation in ("app.acc", "app.acc_1"):
            assert node.value(
                "select has_table_privilege(%s, %s, 'select with grant option')", user, relation
            )
            assert node.value("select has_column_privilege(%s, %s, 'v', 'update')", user, relation)
            assert (
                node.value("select has_table_privilege(%s, %s, 'update')", user, relation) is False
            )
            assert (
                node.value(
                    "select pg_get_userbyid(relowner) from pg_class where oid = %s::regclass",
                    relation,
                )
                == owner
            )
        assert node.value("select has_schema_privilege(%s, 'app', 'usage')", user)
        assert node.value("select has_sequence_privilege(%s, 'app.acc_n_seq', 'usage')", user)
    for node in nodes.all:
        node.alone(f"drop owned by {owner}, {user} cascade")
    admin.run(f"drop role {owner}; drop role {user}")


def test_a_role_that_is_missing_is_a_problem_and_no_error(nodes: Nodes) -> None:
    # All databases of this server share its roles: the definition names one that nobody has.
    nodes[1].run("create table acc (id int primary key, v int); create index by_v on acc (v)")
    found = nodes[1].describe("acc", "id", 2)
    definition = found["definition"]
    role = f"late_{next(numbers)}"
    definition["acl"] = [
        {"grantee": role, "privilege": "SELECT", "grantable": False, "column": None}
    ]
    nodes[2].receive(
        (
            "insert into shardman.tables values ('acc', 'id', 2, '', 1, %s)",
            (Jsonb(definition),),
        ),
        ("insert into shardman.partitions values ('acc_0', 1, null, null, 'acc')", ()),
        ("insert into shardman.partitions values ('acc_1', 1, null, null, 'acc')", ()),
    )
    assert role in nodes[2].drift()["privileges of acc"]
    assert nodes[2].value("select to_regclass('acc_1_fdw')") is not None
    nodes[2].reconcile()
    assert role in nodes[2].drift()["privileges of acc"]
    nodes[2].run(f"create role {role}")
    nodes[2].reconcile()
    assert nodes[2].drift() == {}
    assert nodes[2].value("select has_table_privilege(%s, 'acc_1', 'select')", role)
    nodes[2].alone(f"drop owned by {role}; drop role {role}")


def test_names_are_cut_by_bytes_and_stay_apart(node: Node) -> None:
    long, same = "é" * 30 + "x", "é" * 30 + "y"
    for name in ("a", long, same, "i" * 63):
        for k in (0, 4095):
            made = node.value("select shardman.numbered_name(%s, %s)", name, k)
            assert len(made.encode()) <= 63
            assert made.endswith(f"_{k}")
    assert node.value("select shardman.numbered_name(%s, 7)", long) != node.value(
        "select shardman.numbered_name(%s, 7)", same
    )
    node.run(
        f'create table acc (id int); create index "{long}" on acc (id); create index "{same}" on acc (id)'
    )
    definition = Jsonb(node.describe("acc", "id", 2)["definition"])
    node.rows("select shardman.make_parent(%s, 'shadow')", definition)
    node.rows("select shardman.make_data_table('acc_1', 'shadow', %s)", definition)
    node.rows("select shardman.make_data_indexes('acc_1', %s)", definition)
    assert node.value("select count(*) from pg_index where indrelid = 'acc_1_data'::regclass") == 2


def test_a_taken_index_name_does_not_matter_and_repeating_makes_nothing_twice(node: Node) -> None:
    node.run("create table acc (id int primary key, b int); create index ib on acc (b)")
    node.run(
        "create table other (b int); create index ib_0 on other (b); create table acc_pkey_0 ()"
    )
    definition = Jsonb(node.describe("acc", "id", 1)["definition"])
    node.rows("select shardman.make_parent(%s, 'shadow')", definition)
    node.rows("select shardman.make_data_table('acc_0', 'shadow', %s)", definition)
    for _ in range(2):
        node.rows("select shardman.make_data_indexes('acc_0', %s)", definition)
        assert (
            node.value("select count(*) from pg_index where indrelid = 'acc_0_data'::regclass") == 2
        )


@pytest.mark.parametrize(
    ("make", "identity", "has_key"),
    [
        ("create table acc (id int primary key)", ("d", "PRIMARY KEY"), True),
        ("create table acc (id int not null unique)", ("i", "UNIQUE"), True),
        (
            "create table acc (id int not null); create unique index u on acc (id)",
            ("i", None),
            True,
        ),
        ("create table acc (id int unique)", ("d", None), False),
        ("create table acc (id int primary key deferrable)", ("d", None), False),
        (
            "create table acc (id int primary key); alter table acc replica identity full",
            ("f", "PRIMARY KEY"),
            True,
        ),
        ("create table acc (id int)", ("d", None), False),
    ],
)
def test_what_replication_needs_is_there_before_the_rows(
    node: Node, make: str, identity: tuple[str, str | None], has_key: bool
) -> None:
    node.run(make)
    found = node.describe("acc", "id", 1)
    assert found["has_key"] is has_key
    definition = Jsonb(found["definition"])
    node.rows("select shardman.make_parent(%s, 'shadow')", definition)
    node.rows("select shardman.make_data_table('acc_0', 'shadow', %s)", definition)
    kind, key = identity
    assert (
        node.value("select relreplident::text from pg_class where oid = 'acc_0_data'::regclass")
        == kind
    )
    keys = [
        r[0]
        for r in node.rows(
            "select pg_get_constraintdef(oid) from pg_constraint"
            " where conrelid = 'acc_0_data'::regclass and contype in ('p', 'u')"
        )
    ]
    assert [k.startswith(key or "?") for k in keys] == [True] * (key is not None)
    assert node.value("select count(*) from pg_index where indrelid = 'acc_0_data'::regclass") == (
        1 if has_key else 0
    )


def test_a_data_table_without_keys_gets_them_later(node: Node) -> None:
    node.run("create table acc (id int primary key, b int unique)")
    node.run("alter table acc drop constraint acc_b_key")
    definition = Jsonb(node.describe("acc", "id", 1)["definition"])
    node.rows("select shardman.make_parent(%s, 'shadow')", definition)
    node.rows("select shardman.make_data_table('acc_0', 'shadow', %s, false)", definition)
    assert node.rows("select from pg_index where indrelid = 'acc_0_data'::regclass") == []
    node.rows("select shardman.make_data_indexes('acc_0', %s)", definition)
    assert node.value("select indisprimary from pg_index where indrelid = 'acc_0_data'::regclass")


def test_a_foreign_row_is_refused_by_the_data_table(node: Node) -> None:
    node.run("create table acc (name text primary key)")
    definition = Jsonb(node.describe("acc", "name", 2)["definition"])
    node.rows("select shardman.make_parent(%s, 'shadow')", definition)
    for k in range(2):
        node.rows("select shardman.make_data_table(%s, 'shadow', %s)", f"acc_{k}", definition)
    for name in "abcdefgh":
        refused = 0
        for k in range(2):
            try:
                with node.conn.transaction():
                    node.rows(f"insert into acc_{k}_data values (%s)", name)
            except errors.CheckViolation:
                refused += 1
        assert refused == 1


@pytest.mark.pg(18)
def test_virtual_columns_and_constraints_that_are_not_enforced(nodes: Nodes) -> None:
    nodes[1].run(
        "create table acc (id int primary key, v int generated always as (id * 2) virtual,"
        " constraint c check (id > 0) not enforced, constraint given not null id)"
    )
    nodes.shard("acc", "id")
    for node in nodes.all:
        node.run(f"insert into acc values ({-1 - node.id})")
        assert node.rows("select v from acc where id = %s", -1 - node.id) == [(-2 - 2 * node.id,)]
        assert (
            node.value(
                "select count(*) from pg_constraint"
                " where conrelid = 'acc'::regclass and conname in ('c', 'given')"
            )
            == 2
        )
        assert node.drift() == {}


def test_create_sql_makes_the_parent(node: Node) -> None:
    node.run("create table acc (id int primary key, a text default 'x' not null)")
    node.run("comment on table acc is 'c'")
    script = node.describe("acc", "id")["create_sql"]
    node.run("alter table acc rename to old")
    node.run(script)
    assert node.value("select pg_get_partkeydef('acc'::regclass)") == "HASH (id)"
    assert node.value("select obj_description('acc'::regclass)") == "c"


def test_what_a_foreign_key_refers_to_is_read_from_its_own_words(node: Node) -> None:
    """A column's name that has such words in it does not choose whose rights are looked at."""
    text = 'foreign key ("c REFERENCES z(ok)", b) references "S x"."t (a)" ("a b", c) on delete cascade'
    read = node.value("select shardman.read_reference(%s)", text)
    assert (read["to"], read["to_columns"]) == ('"S x"."t (a)"', ["a b", "c"])
    assert read["columns"] == ["c REFERENCES z(ok)", "b"]
    node.run('create schema "S x"; create table "S x"."t (a)" ("a b" int, c int, a int)')
    node.run("create role refers; grant usage on schema shardman to refers")
    node.run("grant select on all tables in schema shardman to refers")
    node.run('grant references (a) on "S x"."t (a)" to refers; set role refers')
    with pytest.raises(errors.InsufficientPrivilege, match=r"denied for table .S x"):
        node.rows("select shardman.need_references_right(%s, %s)", read["to"], read["to_columns"])
