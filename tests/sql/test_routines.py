"""What the scripts of routines and views are like."""

from __future__ import annotations

import re
from importlib.resources import files

import psycopg
import pytest

from shardman.pg.routines import statements
from sql.databases import Node

SCRIPTS = [
    (folder, entry.name)
    for folder in ("routines", "views")
    for entry in files("shardman.sql").joinpath(folder).iterdir()
]


def text(folder: str, name: str) -> str:
    return files("shardman.sql").joinpath(folder, name).read_text("utf-8")


def test_every_body_is_right_once_everything_is_there(node: Node) -> None:
    node.run("set local check_function_bodies = on")
    # Its event triggers would read each script once more for each of its statements.
    node.run("set local session_replication_role = replica")
    for folder, name in sorted(SCRIPTS):
        node.run(text(folder, name))


@pytest.mark.parametrize(("folder", "name"), SCRIPTS)
def test_statements_are_the_whole_script(folder: str, name: str) -> None:
    found = list(statements(text(folder, name)))
    assert re.sub(r"\s", "", "".join(found)) == re.sub(r"\s", "", text(folder, name))


def test_statements_are_told_apart() -> None:
    script = """
        -- a; comment
        select ';', E'\\';', "x;y" /* ; */;
        create function f() returns text language sql as $$ select ';' $$; do $b$ begin $$;$$; end $b$;
        select 1
    """
    assert [s.split()[0] for s in statements(script)] == ["--", "create", "do", "select"]


def test_a_wrong_body_would_be_seen(node: Node) -> None:
    node.run("set local check_function_bodies = on")
    with pytest.raises(psycopg.errors.UndefinedTable), node.conn.transaction():
        node.run("create function f() returns int language sql as 'select 1 from shardman.nowhere'")


def test_catalogs_are_looked_for_before_temporary_relations(worker: Node) -> None:
    """A path that does not name pg_temp has it first, and some routines have more rights than their caller."""
    assert (
        worker.rows(
            "select p.oid::regprocedure::text, s from pg_proc p, unnest(p.proconfig) s"
            " where p.pronamespace = 'shardman'::regnamespace and s like 'search_path=%'"
            "   and s !~ 'pg_temp\"?$'"
        )
        == []
    )
    assert (
        worker.rows(
            "select p.oid::regprocedure::text from pg_proc p where p.pronamespace = 'shardman'::regnamespace"
            "   and p.prosecdef and not coalesce(p.proconfig::text ~ 'search_path', false)"
        )
        == []
    )
