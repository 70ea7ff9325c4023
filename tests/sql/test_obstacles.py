"""What keeps a table from being sharded, and the plain words for it."""

from __future__ import annotations

import pytest
from psycopg.errors import Diagnostic
from psycopg.types.json import Jsonb

from sql.databases import Node, Nodes

LONG = "l" * 60

#: what to make, table, expr, words of the obstacle, words of the way out
REFUSED = [
    ("", "nope", "id", "no table nope on this node (looked in schema public)", "Give the node"),
    ("create schema app; create table app.acc (id int)", "acc", "id", "no table acc", "app.acc"),
    ("create view acc as select 1 as id", "acc", "id", "acc is a view", "Only tables"),
    ("create materialized view acc as select 1 as id", "acc", "id", "materialized view", "Only"),
    ("create sequence acc", "acc", "id", "is a sequence", "Only tables"),
    (
        "create table acc (id int) partition by hash (id)",
        "acc",
        "id",
        "partitioned already",
        "plain",
    ),
    ("create unlogged table acc (id int)", "acc", "id", "unlogged", "SET LOGGED"),
    (
        "create table p (id int) partition by list (id); create table acc partition of p default",
        *("acc", "id", "is a partition", "Detach"),
    ),
    (
        "create table p (id int); create table acc () inherits (p)",
        *("acc", "id", "inherits from p", "NO INHERIT"),
    ),
    (
        "create table acc (id int); create table c () inherits (acc)",
        *("acc", "id", "c inherits from it", "NO INHERIT"),
    ),
    ("", "pg_catalog.pg_class", "oid", "belongs to the system", "your own"),
    ("", "shardman.nodes", "id", "belongs to the system", "your own"),
    (
        "create server s foreign data wrapper postgres_fdw; create foreign table acc (id int) server s",
        *("acc", "id", "is a foreign table", "Only tables"),
    ),
    ("create table acc (id int)", "acc", "nope", 'column "nope"', "The columns are id"),
    ("create table acc ()", "acc", "id", "acc has no columns", "Add the column"),
    ("create table acc (id int); alter table acc drop id", "acc", "id", "no columns", "Add"),
    ("create table acc (id int)", "acc", " ", "the key is empty", "Name the column"),
    ("create table acc (id int)", "acc", "id, ", "nothing between two commas", "Give a column"),
    ("create table acc (id int)", "acc", "id + 1", "no list of columns", "(a + b)"),
    ("create table acc (id int)", "acc", "id, id", "id is in the key twice", "Name it once"),
    (
        "create table acc (id int)",
        "acc",
        "(id+1), (id + 1)",
        "(id + 1) is in the key twice",
        "once",
    ),
    ("create table acc (id int)", "acc", "(id", "is not closed", "Give a column"),
    ("create table acc (id int)", "acc", "id); drop table acc", "semicolon", "Give a column"),
    ("create table acc (id int)", "acc", "id) -- ", "a comment", "Give a column"),
    ("create table acc (id int)", "acc", "id) with (fillfactor=10", "opened", "Give a column"),
    ("create table acc (id int)", "acc", "random()", "IMMUTABLE", "immutable functions"),
    (
        "create table acc (id int, g int generated always as (id) stored)",
        *("acc", "g", "generated column", "Only columns"),
    ),
    (
        "create type mood as enum ('a'); create table acc (m mood)",
        *("acc", "m", "the type public.mood, whose hashes differ", "Shard by another"),
    ),
    (
        "create type mood as enum ('a'); create table acc (m mood[])",
        *("acc", "m", "the type public.mood[], whose hashes", "Shard by another"),
    ),
    (
        "create type mood as enum ('a'); create domain d as mood; create table acc (m d)",
        *("acc", "m", "public.d", "Shard by another"),
    ),
    (
        "create type pair as (a int, b int); create table acc (p pair)",
        *("acc", "p", "public.pair", "Shard by another"),
    ),
    ("create table acc (r int4range)", "acc", "r", "int4range", "Shard by another"),
    ("create table acc (id int primary key, b int)", "acc", "b", "acc_pkey does not contain b", ""),
    (
        "create table acc (a int, b int, unique (a))",
        *("acc", "a, b", "acc_a_key does not contain b", "extend it by the key"),
    ),
    (
        "create table acc (a int, b int); create unique index u on acc (a) where b > 0",
        *("acc", "b", "unique key u does not contain b", "Drop it"),
    ),
    # 1.0 and 1.00 are equal, and their texts are not.
    (
        (
            "create function t(numeric) returns text language sql immutable as 'select $1::text';"
            " create table acc (a numeric unique)"
        ),
        *("acc", "t(a)", "acc_a_key does not contain", "Drop it"),
    ),
    (
        "create table acc (id int, r int4range, exclude using gist (r with &&))",
        *("acc", "id", "does not ask for equal id", "WITH ="),
    ),
    (
        "create table o (id int primary key); create table acc (id int references o)",
        *("acc", "id", "foreign key acc_id_fkey to o", "DROP CONSTRAINT acc_id_fkey"),
    ),
    (
        "create table acc (id int primary key); create table o (id int references acc)",
        *("acc", "id", "o_id_fkey of o refers to it", "ALTER TABLE o DROP CONSTRAINT"),
    ),
    (
        (
            "create table acc (id int); create function f() returns trigger language plpgsql as"
            " 'begin return new; end'; create trigger t before insert on acc for each row"
            " execute function f()"
        ),
        *("acc", "id", "has triggers: t", "Drop them"),
    ),
    (
        "create table acc (id int); create rule r as on insert to acc do also nothing",
        *("acc", "id", "has rules: r", "Drop them"),
    ),
    (
        "create table acc (id int); alter table acc enable row level security",
        *("acc", "id", "row level security", "policies"),
    ),
    (
        "create table acc (id int); create policy p on acc using (true)",
        *("acc", "id", "row level security", "policies"),
    ),
    ("create type t as (id int); create table acc of t", "acc", "id", "of the type", "NOT OF"),
    (
        "create table acc (id int); alter extension postgres_fdw add table acc",
        *("acc", "id", "belongs to the extension postgres_fdw", "DROP TABLE acc"),
    ),
    (
        "create table acc (id int); create publication p for table acc",
        *("acc", "id", "in the publication p", "ALTER PUBLICATION p DROP TABLE acc"),
    ),
    (
        "create table acc (id int); create view v as select * from acc",
        *("acc", "id", "view v", "make it again"),
    ),
    (
        "create table acc (id int); create view v as select null::acc as a",
        *("acc", "id", "view v", "make it again"),
    ),
    (
        "create table acc (id int); create function f(acc) returns int language sql as 'select 1'",
        *("acc", "id", "function public.f(public.acc)", "make it again"),
    ),
    (
        (
            "create table acc (id int); create function f() returns bigint begin atomic"
            " select count(*) from acc; end"
        ),
        *("acc", "id", "function public.f()", "make it again"),
    ),
    (
        "create table acc (id int); create table o (a acc[])",
        *("acc", "id", "column a of o", "make it again"),
    ),
    (
        "create table acc (id int); alter table acc add constraint c check (id > 0) not valid",
        *("acc", "id", "constraint c has never been validated", "VALIDATE CONSTRAINT c"),
    ),
    (
        "create sequence s; create table acc (id int default nextval('s'))",
        *("acc", "id", "uses the sequence s", "ALTER SEQUENCE s OWNED BY acc.id"),
    ),
    (
        "create table acc (id serial); alter sequence acc_id_seq increment -1",
        *("acc", "id", "counts downwards", "upwards"),
    ),
    (f"create table {LONG} (id int)", LONG, "id", "is too long", "at most 56 bytes"),
    (
        "create table acc (id int); create table acc_2 (); create table acc_3_fdw ()",
        *("acc", "id", "are taken: acc_2, acc_3_fdw", "Rename"),
    ),
]


@pytest.mark.parametrize(("make", "relation", "expr", "what", "hint"), REFUSED)
def test_refused(node: Node, make: str, relation: str, expr: str, what: str, hint: str) -> None:
    node.run(make)
    found = node.describe(relation, expr)
    said = [(o["what"], o["hint"]) for o in found["obstacles"]]
    assert any(what in w and hint in h for w, h in said), said
    assert len(said) == 1, said


ALLOWED = [
    "int2",
    "int8",
    "oid",
    "numeric(10,2)",
    "float4",
    "float8",
    "bool",
    "text",
    "varchar(10)",
    "char(10)",
    "name",
    '"char"',
    "bytea",
    "uuid",
    "date",
    "time",
    "timetz",
    "timestamp",
    "timestamptz",
    "interval",
    "inet",
    "cidr",
    "macaddr",
    "macaddr8",
    "jsonb",
    "text[]",
    'text collate "C"',
    "shardman_test_domain",
    "shardman_test_domain[]",
]


def test_parts_of_a_sharded_table(nodes: Nodes) -> None:
    nodes[1].run("create table acc (id int primary key)")
    nodes.shard("acc", "id")
    nodes[2].reconcile()
    for node, part in ((1, "acc_0"), (1, "acc_0_data"), (2, "acc_0"), (2, "acc_0_fdw")):
        (said,) = nodes[node].describe(part, "id")["obstacles"]
        assert said["what"] == f"{part} belongs to the sharded table acc"


@pytest.mark.parametrize("kind", ALLOWED)
def test_attaching_a_table_of_rows_never_scans_it(node: Node, kind: str) -> None:
    node.run("create domain shardman_test_domain as varchar check (value <> 'x')")
    node.run(f"create table acc (k {kind} primary key, v int)")
    assert attach_all(node, "k") == ["implied"] * 3


@pytest.mark.parametrize("expr", ["lower(a)", "a, b", "(b + 1), a", 'a collate "POSIX"', "c, a"])
def test_expressions_do_not_scan_either(node: Node, expr: str) -> None:
    node.run('create table acc (a text, b int, c text collate "POSIX")')
    assert attach_all(node, expr) == ["implied"] * 3


def attach_all(node: Node, expr: str) -> list[str]:
    """Attaches three filled data tables and tells what PostgreSQL said about their constraints."""
    found = node.describe("acc", expr, 3)
    assert found["obstacles"] == []
    definition = Jsonb(found["definition"])
    said: list[str] = []

    def hear(notice: Diagnostic) -> None:
        said.append(notice.message_primary or "")

    node.conn.add_notice_handler(hear)
    node.rows("select shardman.make_parent(%s, 'shadow')", definition)
    for k in range(3):
        part = f"acc_{k}"
        node.rows("select shardman.make_slot(%s, 'shadow', %s, 3, %s)", definition, part, k)
        node.rows("select shardman.make_data_table(%s, 'shadow', %s)", part, definition)
        node.run("set client_min_messages = debug1")
        node.rows("select shardman.attach_data(%s)", part)
        node.run("reset client_min_messages")
    node.conn.remove_notice_handler(hear)
    assert not [s for s in said if "verifying table" in s]
    return ["implied" for s in said if "is implied by existing constraints" in s]


def test_a_unique_key_of_all_columns_of_the_expression_is_enough(node: Node) -> None:
    node.run("create table acc (name text unique, n int, primary key (name, n))")
    assert node.describe("acc", "lower(name)")["obstacles"] == []


def test_a_unique_index_of_the_expression_itself_is_enough(node: Node) -> None:
    node.run("create table acc (name text); create unique index on acc (lower(name))")
    assert node.describe("acc", "lower(name)")["obstacles"] == []


def test_an_exclusion_constraint_with_the_key_is_kept(node: Node) -> None:
    node.run("create table acc (id int, exclude using btree (id with =))")
    assert node.describe("acc", "id")["obstacles"] == []


def test_all_obstacles_are_said_at_once(node: Node) -> None:
    node.run("create table acc (id int primary key, b int); create view v as select * from acc")
    node.run("alter table acc enable row level security")
    said = " ".join(o["what"] for o in node.describe("acc", "nope")["obstacles"])
    assert all(words in said for words in ("nope", "view v", "row level security")), said


def test_reading_a_key_leaves_nothing_behind(node: Node) -> None:
    node.run("create table acc (id int)")
    for expr in ("id", "nope"):
        node.describe("acc", expr)
    assert node.rows("select relname from pg_class where relname like 'shardman_probe%%'") == []
    assert node.value("show search_path") == '"$user", public'
    assert node.value("show client_min_messages") == "notice"


def test_a_sharded_table_is_not_sharded_again(nodes: Nodes) -> None:
    nodes[1].run("create table acc (id int primary key)")
    nodes.shard("acc", "id")
    (said,) = nodes[1].describe("acc", "id")["obstacles"]
    assert said["what"] == "acc is sharded already"


def test_warnings(node: Node) -> None:
    node.run("create type mood as enum ('a')")
    node.run("create table acc (id smallint generated always as identity, m mood)")
    found = node.describe("acc", "id")
    said = " ".join(found["warnings"])
    assert "GENERATED ALWAYS" in said
    assert "neither a primary key" in said
    assert "type public.mood" in said or "type mood" in said
    assert "325 rows on each node" in said
    assert found["has_key"] is False
