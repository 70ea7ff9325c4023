"""What the functions do does not depend on the settings of the session that calls them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from shardman.pg.connection import SyncConnection
from sql.databases import Node, Nodes

ODD = (
    "-c quote_all_identifiers=on -c standard_conforming_strings=off -c array_nulls=off"
    " -c escape_string_warning=off -c datestyle=SQL,DMY -c intervalstyle=sql_standard"
    " -c bytea_output=escape -c default_transaction_isolation=serializable"
)

CALLS = [
    "select shardman.normal_name('nok')",
    "select shardman.normal_name('app.Nok')",
    "select shardman.data_table('acc_0')",
    "select shardman.metadata_name('shardman.nodes'::regclass)",
    "select shardman.parse_connstring('host=a user=''x y'' dbname=d')",
    "select shardman.parse_connstring('postgresql://u:p%20x@h:1/d?application_name=x')",
    """select shardman.format_connstring('{"host": "a", "user": "x y''z"}')""",
    "select shardman.split_list('lower(a), (b + c), d')",
    "select shardman.describe_table('acc', 'id, lower(name)', 4)",
]


@pytest.fixture
def odd(worker: Node) -> Iterator[SyncConnection]:
    """A session that is set as few are."""
    with worker.connect(options=ODD) as session:
        yield session


@pytest.fixture
def acc(worker: Node) -> Iterator[None]:
    worker.run(
        "create table acc (id int, name text default 'x', v int check (v > 0),"
        " primary key (id, name)); create index on acc (v) where v > 1"
    )
    yield
    worker.run("drop table acc")


@pytest.mark.usefixtures("acc")
@pytest.mark.parametrize("call", CALLS)
def test_results_are_the_same(worker: Node, odd: SyncConnection, call: str) -> None:
    row = odd.execute(call.encode()).fetchone()
    assert row == (worker.value(call),)


@pytest.mark.usefixtures("acc")
def test_a_key_that_would_leave_its_parentheses(odd: SyncConnection) -> None:
    row = odd.execute("select shardman.describe_table('acc', 'id; x', 4)").fetchone()
    assert row is not None
    assert "semicolon" in row[0]["obstacles"][0]["what"]


def _opts(nodes: Nodes, cmd_id: int) -> dict[str, Any]:
    return dict(nodes[0].rows("select name, opt from shardman.cmd_opts where cmd_id = %s", cmd_id))


@pytest.mark.parametrize("home", [0, 1])
def test_commands_are_written_down_the_same(nodes: Nodes, home: int) -> None:
    lord = nodes[0]
    # Also what a worker's postgres_fdw finds there.
    for setting in ODD.removeprefix("-c ").split(" -c "):
        name, _, value = setting.partition("=")
        lord.conn.execute(
            sql.SQL("alter database {} set {} = {}").format(
                sql.Identifier(lord.conn.info.dbname), sql.Identifier(name), value
            )
        )
    with nodes[home].connect(options=ODD) as session:
        for call, opts in (
            ("move_part('nok_0', 2)", {"part_name": "nok_0", "dest": "2", "src": None}),
            ("add_node('host=a user=b')", {"connstring": "host=a user=b", "zone": None}),
            ("create_hash_partitions(1, 'nok', 'id', 2)", {"relation": "nok", "expr": "id"}),
        ):
            row = session.execute(f"select shardman.{call}".encode()).fetchone()
            assert row is not None
            assert _opts(nodes, row[0]).items() >= opts.items()
        with pytest.raises(psycopg.Error, match="expr is empty"):
            session.execute("select shardman.create_hash_partitions(1, 'nok', %s, 2)", (" \t\n ",))
