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
        "create table acc (id int primary key, g int generated always as (id) stored)",
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
        "create table o (id int primary key); create table acc (id int references o)",
        *("acc", "id", "to o, which is not shared", "shardman.create_shared_table('o', "),
    ),
    (
        "create table acc (id int primary key, up int references acc)",
        *("acc", "id", "acc_up_fkey to itself", "DROP CONSTRAINT acc_up_fkey"),
    ),
    (
        "create table acc (id int primary key); create table o (id int references acc)",
        *("acc", "id", "o_id_fkey of o refers to it", "ALTER TABLE o DROP CONSTRAINT"),
    ),
    (
        (
            "create table acc (id int); create function f() returns trigger language plpgsql as"
            " 'begin return new; end'; create trigger t before insert on acc execute function f()"
        ),
        *("acc", "id", "the trigger t acts once for each statement", "Make it FOR EACH ROW"),
    ),
    (
        "create table acc (id int); create rule r as on insert to acc do also nothing",
        *("acc", "id", "has rules: r", "Drop them"),
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
        "create table acc (id int); create materialized view v as select * from acc",
        *("acc", "id", "materialized view v", "make it again"),
    ),
    (
        "create table acc (id int); create view v as select * from only acc",
        *("acc", "id", "view v", "make it again"),
    ),
    (
        "create table acc (id int primary key, b int); create view v as select id, b from acc group by id",
        *("acc", "id", "view v", "make it again"),
    ),
    (
        "create table acc (id int); create temp view v as select * from acc",
        *("acc", "id", "v", "make it again"),
    ),
    (
        "create table acc (id int); create view v as select; create rule r as on delete to v do table acc",
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
    (
        "create table acc (id serial); alter sequence acc_id_seq maxvalue 1000 cycle",
        *("acc", "id", "sequence acc_id_seq begins anew", "ALTER SEQUENCE acc_id_seq NO CYCLE"),
    ),
    (
        "create table acc (id int, n int, constraint k unique (id, n) deferrable initially deferred)",
        *("acc", "id", "the key k is DEFERRABLE", "NOT DEFERRABLE"),
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


@pytest.mark.parametrize(
    ("check", "differs"),
    [
        ("extract(hour from at) < 8", True),
        ("at::date > '2000-01-01'", True),
        ("at::text like '2%'", True),
        ("day::text like '2%'", True),
        ("at > '2000-01-01' and at::time < '08:00'", True),
        ("day < current_date", True),
        ("to_char(at, 'HH24') = '07'", True),
        ("to_tsvector(word) @@ 'a'", True),
        ("at + interval '1 day' > until", True),
        ("word = current_setting('app.x')", True),
        ("at <= now()", False),
        ("until > at", False),
        ("extract(hour from at at time zone 'UTC') < 8", False),
        ("id::text <> '7' and lower(word) = word and length(word) < 5", False),
        ("to_tsvector('simple', word) @@ 'a'", False),
        ("word <> current_user", False),
    ],
)
def test_checks_that_depend_on_the_session(node: Node, check: str, differs: bool) -> None:
    columns = "id int, word text, day date, at timestamptz, until timestamptz"
    node.run(f"create table acc ({columns}, constraint c check ({check}))")
    said = [o["what"] for o in node.describe("acc", "id")["obstacles"]]
    assert bool(said) == differs, said
    assert all("the check c depends on the session" in what for what in said)
    # A domain's is found as well.
    node.run(
        "drop table acc; create domain at_work as timestamptz constraint d check (extract(hour from value) < 8)"
    )
    node.run("create table acc (id int, at at_work[])")
    (said,) = node.describe("acc", "id")["obstacles"]
    assert "the check d of the domain public.at_work depends" in said["what"]


def test_a_generated_column_without_a_key(node: Node) -> None:
    node.run("create table acc (id int, twice int generated always as (id * 2) stored)")
    said = [o["what"] for o in node.describe("acc", "id")["obstacles"]]
    if node.value("select current_setting('server_version_num')::int") >= 180000:
        assert len(said) == 1 and "could not be changed while they are replicated" in said[0]
    else:
        assert said == []


def test_a_maximum_is_not_kept(node: Node) -> None:
    node.run("create table acc (id serial); alter sequence acc_id_seq maxvalue 100000000 cache 5")
    found = node.describe("acc", "id")
    assert any("MAXVALUE of sequence acc_id_seq is not kept" in w for w in found["warnings"])
    assert found["definition"]["sequences"][0]["cache"] == 5


def test_functions_that_look_for_names(node: Node) -> None:
    node.run(
        "create function f(int) returns bool language sql immutable as 'select true';"
        "create function g(int) returns bool language sql immutable set search_path = public as 'select true';"
        "create function h(int) returns bool language sql immutable return true;"
        "create table acc (id int check (f(id)) check (g(id)) check (h(id)))"
    )
    said = [w for w in node.describe("acc", "id")["warnings"] if "search_path" in w]
    assert len(said) == 1 and "ALTER FUNCTION public.f(integer) SET search_path" in said[0]


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
        node.rows("select shardman.make_partition(%s, 'shadow', %s, 3, %s)", definition, part, k)
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


REFERENCES = [
    ("references o", "", ""),
    ("references o on delete cascade", "", ""),
    ("references o on update cascade", "f would change o, by which rows", "without that action"),
    ("references o on delete set null", "f would change o, by which rows", "without that action"),
    ("references o not valid", "f has never been validated", "VALIDATE CONSTRAINT f"),
]


@pytest.mark.parametrize(("key", "what", "hint"), REFERENCES)
def test_foreign_keys_to_a_shared_table(node: Node, key: str, what: str, hint: str) -> None:
    node.run(
        "create table o (id int primary key); create table acc (id int, o int);"
        f" alter table acc add constraint f foreign key (o) {key}"
    )
    node.run(
        "insert into shardman.shared_tables (relation, initial_node, definition)"
        " values ('o', 1, '{}')"
    )
    said = [(o["what"], o["hint"]) for o in node.describe("acc", "o")["obstacles"]]
    assert len(said) == bool(what), said
    assert all(what in w and hint in h for w, h in said)
    # Whatever it does to a column that is not of the key.
    if not what or "valid" not in what:
        found = node.describe("acc", "id")
        assert found["obstacles"] == []
        (kept,) = found["definition"]["foreign_keys"]
        assert (kept["name"], kept["to"], kept["columns"]) == ("f", "o", ["o"])
        assert key.removeprefix("references o").upper() in kept["sql"]


def test_deferrable_foreign_keys_are_checked_at_once(node: Node) -> None:
    node.run(
        "create table o (id int primary key);"
        " create table acc (id int, o int references o deferrable initially deferred)"
    )
    ((key, said),) = node.rows(
        "select shardman.describe_references('acc'::regclass) -> 0 ->> 'sql' as sql,"
        " shardman.table_warnings('acc'::regclass) as said"
    )
    assert key == "FOREIGN KEY (o) REFERENCES public.o(id)"
    assert any("acc_o_fkey is checked at each statement" in w for w in said)


def test_all_obstacles_are_said_at_once(node: Node) -> None:
    node.run(
        "create table acc (id int primary key, b int); create materialized view v as table acc"
    )
    node.run("create rule r as on delete to acc do instead nothing")
    said = " ".join(o["what"] for o in node.describe("acc", "nope")["obstacles"])
    assert all(words in said for words in ("nope", "view v", "rules: r")), said


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


#: what bob's table is made with; what is said; how a superuser takes it over
CODE_OF_OTHERS = [
    (
        "create table acc (id int check (f(id)))",
        "constraint acc_id_check",
        "function public.f(integer)",
    ),
    (
        "create table acc (id int primary key, g int generated always as (g(id)) stored)",
        "generated column g",
        "function public.g(integer)",
    ),
    (
        "create table acc (id int); create index on acc (g(id))",
        "index acc_g_idx",
        "function public.g(integer)",
    ),
    (
        "create table acc (id int); create index i on acc (id) where f(id)",
        "index i",
        "function public.f(integer)",
    ),
    (
        "create table acc (id int check (id === 1))",
        "constraint acc_id_check",
        "function public.f(integer,integer)",
    ),
    ("create table acc (id int, d d)", "type of a column", "domain public.d"),
    ("create table acc (id int, d d[])", "type of a column", "domain public.d"),
    (
        "create type c as (a int, b d); create table acc (id int, c c)",
        "type of a column",
        "domain public.d",
    ),
]
BOB = """
create role bob; grant create, usage on schema public to bob; set role bob;
create function f(int) returns bool immutable language sql return true;
create function f(int, int) returns bool immutable language sql return true;
create function g(int) returns int immutable language sql return 1;
create operator === (leftarg = int, rightarg = int, function = f);
create domain d as int;
"""


@pytest.mark.parametrize(("make", "what", "code"), CODE_OF_OTHERS)
def test_code_of_others_must_not_run_as_the_cluster(
    node: Node, make: str, what: str, code: str
) -> None:
    node.run(BOB + make + "; reset role")
    said = node.describe("acc", "id")["obstacles"]
    assert any(what in o["what"] and code in o["what"] for o in said), said
    for obstacle in said:
        assert "belongs to bob, who is no superuser" in obstacle["what"]
        # The way out that is told is one.
        node.run(obstacle["hint"].partition("every node: ")[2])
    assert node.describe("acc", "id")["obstacles"] == []
