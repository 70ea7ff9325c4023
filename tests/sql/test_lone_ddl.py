"""DDL that would change a sharded table on one node only, in whatever words it comes, is refused."""

from __future__ import annotations

import psycopg
import pytest

from sql.databases import Node, Nodes

TABLE = """
create schema app;
create type app.mood as enum ('a', 'b');
create function app.small(int) returns bool language sql immutable as 'select $1 < 1000000';
grant usage on schema app to lone_owner;
create table app.acc (id serial primary key, v int check (app.small(v)), mood app.mood default 'a');
create unique index by_v on app.acc (id, v);
create index by_mood on app.acc (mood);
insert into app.acc (v) select i from generate_series(1, 40) i;
"""

REFUSED = [
    # Of partitions: more of them, none of them, another's.
    ("create table app.p partition of app.acc_0 for values in (7)", "above or below"),
    (
        (
            "create table app.par (id int not null, v int, mood app.mood) partition by list (id);"
            "alter table app.par attach partition app.acc default"
        ),
        "above or below",
    ),
    ("alter table app.acc detach partition app.acc_1", "this node only|cannot be detached"),
    ("alter table app.acc_1 detach partition app.acc_1_data", "acc_1 belongs to"),
    # With others.
    (
        "create table app.o (id int); drop table app.o, app.acc cascade; select 1",
        "rows of this node",
    ),
    ("drop schema app cascade", "rows of this node only"),
    ("drop type app.mood cascade", "would drop its table column"),
    ("drop function app.small(int) cascade", "would drop its table constraint"),
    ("drop sequence app.acc_id_seq cascade", "this would drop that of this node"),
    ("drop index app.by_v_0", "would drop its index"),
    ("drop index app.by_v_1, app.by_v_2", "would drop its index"),
    ("do $$ begin drop index app.by_v_3; perform 1; end $$", "would drop its index"),
    (
        "create function app.f() returns void language sql as 'drop index app.by_v_0'; select app.f()",
        "would drop its index",
    ),
    # What the table has as a whole PostgreSQL keeps together.
    ("drop index app.by_mood_0", "requires it"),
    ("drop owned by lone_reader", "take rights on sharded tables away"),
    ("create table app.acc (id int)", "already exists"),
    # Hidden in other words.
    ("alter index app.acc rename to b", "is a table"),
    ("do $$ begin alter index app.acc rename to b; perform 1; end $$", "only"),
    ("alter table only (app.acc) alter v set default 3", "this node only"),
    ('alter table U&"app".acc add column w int', "this node only"),
    ("comment on constraint acc_pkey on app. /* */ acc is 'x'", "this node only"),
    ("alter sequence app.acc_id_seq owned by none", "belongs to it|on this node only"),
]

HARMLESS = """
create table app.plain (id serial, v int); alter table app.plain add w int; create index by_w on app.plain (w);
drop index app.by_w; alter sequence app.plain_id_seq restart; comment on column app.plain.w is 'x';
create temp table acc (id int); alter table acc add v int; drop table acc; drop table app.plain;
create table if not exists app.acc (id int); create role lone; drop owned by lone; drop role lone;
reindex table app.acc;
comment on sequence app.acc_id_seq is 'numbers';
create table app.acc_9_data (id int); alter table app.acc_9_data add v int;
"""


@pytest.fixture
def sharded(nodes: Nodes) -> Nodes:
    for role in ("lone_owner", "lone_reader"):
        if not nodes[0].rows("select from pg_roles where rolname = %s", role):
            nodes[0].run(f"create role {role}")
    for node in nodes.all:
        node.run(TABLE.split("create table", maxsplit=1)[0] if node.id != 1 else TABLE)
    nodes.shard("app.acc", "id")
    for node in nodes.all:
        node.alone(
            "alter table app.acc owner to lone_owner; grant select on app.acc to lone_reader"
        )
    return nodes


def test_what_is_one_nodes_is_refused(sharded: Nodes) -> None:
    node = sharded[1]
    for statement, said in REFUSED:
        with (
            node.conn.transaction(force_rollback=True),
            pytest.raises(psycopg.Error, match=said),
        ):
            node.run(statement)
        assert node.value("select count(*) from app.acc") == 40, statement
    for statement in HARMLESS.split(";\n"):
        node.run(statement)


@pytest.mark.parametrize(
    "name", ['"Weird Name"', '"a.b"', '"a""b"', "s1.acc", '"S 2"."Ort\'s"', "ä$1"]
)
@pytest.mark.parametrize(
    ("tag", "statement"),
    [
        ("ALTER TABLE", "alter table {} add column x int"),
        ("ALTER TABLE", "ALTER TABLE IF EXISTS ONLY {}\n  ADD x int"),
        ("CREATE INDEX", 'create index "i x" on {}(id)'),
        ("CREATE INDEX", "create unique index if not exists i on only {} using btree (id)"),
        ("COMMENT", "comment on column {}.id is 'it''s'"),
        ("COMMENT", "comment on table {} is 'x'"),
        ("CREATE POLICY", 'create policy "p q" on {} for select using (true)'),
        ("DROP TABLE", "drop table if exists {} cascade"),
        (
            "CREATE TRIGGER",
            'create or replace trigger "t on" before insert or update of id, "b or" or delete on {}\n',
        ),
        (
            "CREATE TRIGGER",
            "CREATE CONSTRAINT TRIGGER t AFTER UPDATE ON {} for each row execute function f()",
        ),
        ("ALTER TRIGGER", "alter trigger t on {} rename to u"),
        ("DROP TRIGGER", "drop trigger if exists t on {} cascade"),
        ("COMMENT", "comment on trigger t on {} is 'x'"),
    ],
)
def test_the_table_of_a_statement_is_found_by_any_name(
    node: Node, name: str, tag: str, statement: str
) -> None:
    node.run('create schema if not exists s1; create schema if not exists "S 2"')
    node.run(f"create table {name} (id int)")
    found = node.value(
        "select shardman.ddl_relation(%s, %s, 'public') = %s::regclass",
        statement.format(name),
        tag,
        name,
    )
    assert found is True
