"""A node that is added later, or was away, has the rights of the others, those given meanwhile included."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from sql.databases import Node, Nodes, numbers

#: All that is granted, as it is told apart from what the owner has by himself.
RIGHTS = """
select (select array_agg(p::text order by p::text) from shardman.privileges_of(c.oid) p),
       c.relowner::regrole::text, c.relrowsecurity, c.relforcerowsecurity,
       (select array_agg(p::text order by p::text) from shardman.policies_of(c.oid) p)
  from pg_class c where c.oid = shardman.find_relation(%s)
"""
LATER = """
grant select, update (note) on app.acc to {clerk} with grant option;
revoke insert on app.acc from public; grant usage on schema app to {clerk};
grant usage on sequence app.acc_id_seq to {clerk};
alter table app.acc owner to {boss};
create policy later on app.acc for select to {clerk} using (id < 10 and note <> 'app.acc.');
drop policy first on app.acc; alter table app.acc force row level security;
"""


@pytest.fixture
def roles(nodes: Nodes) -> Iterator[dict[str, str]]:
    names = {name: f"{name}_{next(numbers)}" for name in ("clerk", "boss", "late")}
    password = sql.Literal(nodes[0].password)
    for name in names.values():
        nodes[0].conn.execute(
            sql.SQL("create role {} login password {}").format(sql.Identifier(name), password)
        )
    yield names
    for node in nodes.all:
        node.alone("drop schema app cascade; select shardman.reset_database()")
        node.alone("drop owned by " + ", ".join(names.values()))
    for name in names.values():
        nodes[0].run(f"drop role if exists {name}")


def begin_anew(nodes: Nodes, node: Node) -> None:
    """What the node has of the table goes, as if it had just been added, with the lord's metadata of now."""
    nodes[0].run("select shardman.remember_rights()")
    definition = nodes[0].value("select definition from shardman.tables")
    node.alone("drop table app.acc cascade")
    node.receive(("update shardman.tables set definition = %s", (Jsonb(definition),)))
    assert node.reconcile() == 0


def test_it_gets_what_was_given_and_not_what_was_taken(nodes: Nodes, roles: dict[str, str]) -> None:
    for node in nodes.all:
        node.run("create schema app")
    nodes[1].run(
        "create table app.acc (id bigserial primary key, note text);"
        " grant insert on app.acc to public; create policy first on app.acc;"
        " alter table app.acc enable row level security;"
        " insert into app.acc (note) select 'n' || i from generate_series(1, 20) i"
    )
    nodes.shard("app.acc", "id")
    for node in nodes.all[:2]:
        node.alone(LATER.format(**roles))
        assert node.reconcile() == 0
    added = nodes[2]
    added.run(f"alter default privileges in schema app grant all on tables to {roles['late']}")
    added.run(f"alter default privileges in schema app grant all on sequences to {roles['late']}")
    begin_anew(nodes, added)
    for relation in ("app.acc", "app.acc_1", "app.acc_id_seq"):
        assert added.rows(RIGHTS, relation) == nodes[0].rows(RIGHTS, relation), relation
    given = "select count(*) from shardman.privileges_of('app.acc_1_fdw'::regclass)"
    assert added.value(given) == 0
    # By an earlier version, or by hand.
    added.alone(f"grant select on app.acc_1_fdw to {roles['late']}")
    assert added.reconcile() == 0
    assert added.value(given) == 0
    with added.connect(user=roles["clerk"]) as conn:
        assert conn.execute("select count(*) from app.acc").fetchone() == (9,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("insert into app.acc (note) values ('x')")


def test_a_role_that_is_missing_gets_its_rights_when_it_is_there(
    nodes: Nodes, roles: dict[str, str]
) -> None:
    late = roles["late"]
    for node in nodes.all:
        node.run("create schema app")
    nodes[1].run("create table app.acc (id int primary key)")
    nodes.shard("app.acc", "id")
    nodes[0].alone(
        f"grant select on app.acc to {late}; alter table app.acc enable row level security;"
        f" create policy open on app.acc to public using (true);"
        f" create policy own on app.acc to {late} using (id > 0)"
    )
    nodes[0].run("select shardman.remember_rights()")
    definition = nodes[0].value("select definition from shardman.tables")
    nodes[0].alone(f"drop owned by {late}; drop role {late}")
    node = nodes[2]
    node.alone("drop table app.acc cascade")
    node.receive(("update shardman.tables set definition = %s", (Jsonb(definition),)))
    assert f'role "{late}" does not exist' in node.drift()["privileges of app.acc"]
    node.run(f"create role {late}")
    node.reconcile()
    assert node.drift() == {}
    node.reconcile()
    assert node.value("select count(*) from shardman.policies_of('app.acc_2'::regclass)") == 2
    assert node.value("select has_table_privilege(%s, 'app.acc_0', 'select')", late)


def test_a_node_that_was_away_gets_what_was_given_and_loses_what_was_taken(
    nodes: Nodes, roles: dict[str, str]
) -> None:
    for node in nodes.all:
        node.run("create schema app")
    nodes[1].run(
        "create table app.acc (id bigserial primary key, note text);"
        " grant insert on app.acc to public; create policy first on app.acc;"
        " alter table app.acc enable row level security"
    )
    nodes.shard("app.acc", "id")
    for node in nodes.all[:2]:
        node.alone(LATER.format(**roles))
        assert node.reconcile() == 0
    away = nodes[2]
    rights = Jsonb(nodes[0].value("select shardman.rights_everywhere()"))
    assert away.value("select shardman.take_rights(%s)", rights) == ["app.acc"]
    assert away.value("select shardman.take_rights(%s)", rights) == []
    assert away.reconcile() == 0
    assert away.drift() == {}
    for relation in ("app.acc", "app.acc_1", "app.acc_id_seq"):
        assert away.rows(RIGHTS, relation) == nodes[0].rows(RIGHTS, relation), relation
    assert away.value("select has_schema_privilege(%s, 'app', 'usage')", roles["clerk"])
    for node in nodes.all[:2]:
        node.alone("alter table app.acc disable row level security; drop policy later on app.acc")
        assert node.reconcile() == 0
    rights = Jsonb(nodes[0].value("select shardman.rights_everywhere()"))
    away.value("select shardman.take_rights(%s)", rights)
    away.reconcile()
    assert away.rows(RIGHTS, "app.acc_1") == nodes[0].rows(RIGHTS, "app.acc_1")
