"""plpgsql_check (Debian: postgresql-15-plpgsql-check) over every function of ours in PL/pgSQL.

PostgreSQL itself looks at the syntax only: a name that does not exist and a type that does not fit are found
when the line is executed. Here they are found in all lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from shardman.local import Programs
from sql.conftest import make_nodes
from sql.databases import Node

#: What the checker is wrong about, or warns of though it is meant so: a part of the message and in which
#: functions, in all where none is named.
ACCEPTED = {
    # `declare x jsonb := '{}'`: a literal, converted once.
    "target type is different type than source type": (),
    # A loop that ends by return or raise alone.
    "control reached end of function without RETURN": (
        "await_confirmed",
        "bottom_type",
        "cmd_wait",
    ),
    # return query execute.
    "is maybe unmodified": ("breaking_rows", "chunk_content", "content_buckets", "shared_rows"),
    # The checker calls it, to know its type, outside of an event.
    "can only be called in a table_rewrite event trigger function": ("on_rewrite",),
}
FUNCTIONS = """
select p.oid::int, p.proname, coalesce(t.tgrelid, 0)::int
  from pg_proc p join pg_language l on l.oid = p.prolang and l.lanname = 'plpgsql'
  left join pg_trigger t on t.tgfoid = p.oid
 where p.pronamespace = 'shardman'::regnamespace order by 2, 3
"""
#: What functions make for themselves, or find on a worker, before they use it.
MAKE_WHAT_THEY_MAKE = """
create temp table shardman_probe (id int);
create temp table shardman_probe_key (like shardman_probe) partition by hash (id);
create temp table shardman_taken (id int);
create temp view shardman_probe_types as select 1 as a;
create temp view shardman_probe_columns as select id as k from shardman_probe;
create table written (id int);
select shardman.reconcile();
select shardman.make_read_only('written');
create trigger home before update on written for each row execute function shardman.as_at_home('public');
create trigger leaving before update on written for each row execute function shardman.refuse_leaving();
"""


@pytest.fixture(scope="module")
def checked(server: str, pg_programs: Programs) -> Iterator[Node]:
    """A worker with the extension."""
    with closing(make_nodes(server, [0, 1])) as nodes:
        worker = nodes[1]
        if not worker.rows("select 1 from pg_available_extensions where name = 'plpgsql_check'"):
            pytest.skip(f"PostgreSQL {pg_programs.version} here has no plpgsql_check")
        worker.run("create extension plpgsql_check")
        worker.run(MAKE_WHAT_THEY_MAKE)
        yield worker


def findings(node: Node, only: str | None = None) -> Iterator[str]:
    """What the checker says; of what it has checked in this session before it may fall over."""
    for oid, name, table in node.rows(FUNCTIONS):
        if only not in (None, name):
            continue
        # No security_warnings: they take every %s for an injection, also that of a name that is quoted.
        for line, message, query in node.rows(
            "select lineno, concat_ws(': ', message, detail), query from plpgsql_check_function_tb("
            " %s::oid::regprocedure, %s::oid::regclass, other_warnings => true, extra_warnings => true,"
            " performance_warnings => false, compatibility_warnings => true)",
            oid,
            table,
        ):
            where = next((fs for part, fs in ACCEPTED.items() if part in message), None)
            if where is None or (where and name not in where):
                yield f"{name}, line {line}: {message} ({query})"


def test_nothing_is_found(checked: Node) -> None:
    assert list(findings(checked)) == []


def test_something_would_be_found(checked: Node) -> None:
    with checked.conn.transaction(force_rollback=True):
        checked.run(
            # Without event triggers: the checker spoils, for this session, what it has checked.
            "set local session_replication_role = replica;"
            "create function shardman.wrong() returns int language plpgsql as"
            " 'declare unused int; begin return nowhere from shardman.nodes; end'"
        )
        assert any("nowhere" in each for each in findings(checked, "wrong"))
