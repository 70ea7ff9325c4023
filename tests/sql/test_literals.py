"""A literal of a user's type runs the checks of the domains inside as whoever parses it: not as the cluster."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.types.json import Jsonb

from sql.databases import Node, Nodes

TYPES = """
create schema app authorization bob;
set role bob;
create function app.grab(t text) returns bool language plpgsql as
    $$ begin alter role mallory superuser; return true; exception when others then return true; end $$;
create domain app.trap as text check (app.grab(value));
create type app.pair as (a app.trap);
reset role;
"""
EXPRESSIONS = [
    "alter table acc alter note set default '(1)'::app.pair",
    "alter table acc add check (note <> ('(1)'::app.pair)::text)",
    "create policy p on acc using (note <> ('(1)'::app.pair)::text)",
    "create index on acc (id) where ('(1)'::app.pair) is not null",
]


@pytest.fixture
def roles(nodes: Nodes) -> Iterator[Nodes]:
    nodes[1].run("create role bob; create role mallory")
    yield nodes
    for node in nodes.all:
        node.run("reset role")
        node.alone("drop owned by bob cascade")
    nodes[1].run("drop role bob; drop role mallory")


def is_unharmed(node: Node) -> bool:
    return not node.value("select rolsuper from pg_roles where rolname = 'mallory'")


def test_the_trap_works(roles: Nodes) -> None:
    roles[1].run(TYPES)
    roles[1].run("select '(1)'::app.pair; ")
    assert not is_unharmed(roles[1])


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_table_with_such_a_literal_is_not_sharded(roles: Nodes, expression: str) -> None:
    node = roles[1]
    node.run(TYPES)
    node.run("create table acc (id int primary key, note text)")
    node.run("alter table acc owner to bob; grant create on schema public to bob; set role bob")
    node.run(expression)
    node.run("reset role; revoke create on schema public from bob; alter role mallory nosuperuser")
    found = node.describe("acc", "id", 3)["obstacles"]
    assert any("belongs to bob, who is no superuser" in o["what"] for o in found), found
    assert is_unharmed(node)


def test_nor_made_where_another_type_has_the_name(roles: Nodes) -> None:
    """On the first node it is a plain type; on the second bob has made the trap before."""
    first, second = roles[1], roles[2]
    first.run("create schema app authorization bob; create type app.pair as (a text)")
    first.run("create table acc (id int primary key, note text default ('(1)'::app.pair)::text)")
    definition = first.describe("acc", "id", 3)
    assert definition["obstacles"] == []
    second.run(TYPES)
    with pytest.raises(psycopg.Error, match="does not read a value of the type") as error:
        second.rows(
            "select shardman.make_parent(%s, 'acc')",
            Jsonb(definition["definition"]),
        )
    assert error.value.sqlstate == "SHM09"
    assert is_unharmed(second)
