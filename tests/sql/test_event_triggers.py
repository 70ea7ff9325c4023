"""An event trigger of the user's that raises is told by its name, and one that does not stands in no way."""

from __future__ import annotations

import psycopg
import pytest

from shardman.lord.failures import sentence
from sql.databases import Node

TRAP = """
create function public.no_tables() returns event_trigger language plpgsql as $$
begin
    raise exception 'not on a %', to_char(date '2026-11-27', 'FMDay');
end $$;
create event trigger "No Tables" on ddl_command_start when tag in ('CREATE TABLE')
    execute function public.no_tables();

"""
UNRELATED = """
create function public.look() returns event_trigger language plpgsql as $$ begin end $$;
create event trigger "Look" on ddl_command_end execute function public.look();
"""


def test_one_that_raises_is_named_and_not_the_key(node: Node) -> None:
    node.run("create table acc (id int primary key)")
    node.run("create table par (id int) partition by hash (id)")
    node.run(TRAP)
    found = node.describe("acc", "id")
    (obstacle,) = found["obstacles"]
    assert 'the event trigger "No Tables" does not let the cluster make tables' in obstacle["what"]
    assert "not on a Friday" in obstacle["what"]
    assert "cannot be a key" not in obstacle["what"]
    with pytest.raises(psycopg.errors.RaiseException) as caught, node.conn.transaction():
        node.rows(
            """select shardman.make_partition('{"partition_key": "id"}', 'par', 'par_1', 4, 1)"""
        )
    said = sentence(caught.value)
    assert "no_tables, which is not the cluster's, raised an error: not on a Friday" in said
    assert "pg_event_trigger" in said
    with pytest.raises(psycopg.errors.RaiseException) as caught, node.conn.transaction():
        node.run("do $$ begin raise exception 'ours'; end $$")
    assert "which is not" not in sentence(caught.value)


def test_an_owner_can_make_none(node: Node) -> None:
    """They are a superuser's alone: an owner cannot reach the cluster's sessions by them."""
    node.run("create role owner; grant all on schema public to owner; set role owner")
    node.run("create function public.mine() returns event_trigger language plpgsql as 'begin end'")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        node.run("create event trigger mine on ddl_command_end execute function public.mine()")


def test_one_that_does_not_stands_in_no_way(node: Node) -> None:
    node.run("create table acc (id int primary key)")
    node.run(UNRELATED)
    assert node.describe("acc", "id")["obstacles"] == []
    bad = node.describe("acc", "no_such")["obstacles"][0]["what"]
    assert "cannot be a key" in bad
    assert "event trigger" not in bad
