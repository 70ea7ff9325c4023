"""What others know of a step: tables of their own, written together with the plan."""

from __future__ import annotations

import asyncio
import re
from dataclasses import fields
from importlib.resources import files
from typing import Any, get_args

import psycopg
import pytest

import shardman.steps  # noqa: F401  (registers every kind)
from shardman.errors import Refused
from shardman.lord.entry import Entry
from shardman.lord.journal import Journal
from shardman.model.plan import Plan
from shardman.steps.state import State
from sql.databases import LORD, Node, Nodes
from steps.plans import CLUSTER, plans

KEY = ["cmd_id", "attempt", "n"]


def prepared(nodes: Nodes) -> Node:
    """The lord, with every node of the plans and a leadership of epoch 1."""
    lord = nodes[LORD]
    for node in CLUSTER.nodes.values():
        lord.run(
            f"insert into shardman.nodes (id, connstring, worker_status, lord) values ({node.id},"
            f" 'host=n{node.id}', {'null' if node.lord else repr('active')}, {node.lord})"
            " on conflict (id) do nothing"
        )
    lord.run("delete from shardman.lease; insert into shardman.lease (epoch) values (1)")
    return lord


def store(dsn: str, cmd_id: int, plan: Plan, epoch: int = 1) -> None:
    async def run() -> None:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
            await Entry(Journal(conn, epoch), cmd_id, 1).store(plan)

    asyncio.run(run())


def submitted(lord: Node, name: str) -> int:
    return int(
        lord.value(
            "insert into shardman.cmd_log (cmd_type, status, attempt) values (%s, 'in progress', 1)"
            " returning id",
            name,
        )
    )


@pytest.mark.parametrize("state", get_args(State))
def test_fields_are_columns(node: Node, state: Any) -> None:
    columns = node.rows(
        "select column_name from information_schema.columns where table_schema = 'shardman'"
        " and table_name = %s order by ordinal_position",
        state.table,
    )
    assert [c for (c,) in columns] == [*KEY, *(f.name for f in fields(state))]


def test_every_plan_can_be_written_down(nodes: Nodes) -> None:
    lord = prepared(nodes)
    for command, plan in plans():
        cmd_id = submitted(lord, command.name)
        store(lord.dsn, cmd_id, plan)
        kept = lord.value("select count(*) from shardman.cmd_steps where cmd_id = %s", cmd_id)
        assert kept == len(plan)


def test_what_a_failover_lets_others_know(nodes: Nodes) -> None:
    lord = prepared(nodes)
    plan = next(p for c, p in plans() if c.name == "failover")
    cmd_id = submitted(lord, "failover")
    store(lord.dsn, cmd_id, plan)
    assert lord.rows("select * from shardman.returns_of(1)") == []
    lord.run(f"update shardman.cmd_log set switched = true where id = {cmd_id}")
    assert lord.rows("select * from shardman.returns_of(1)") == [
        (cmd_id, ["acc_0", "more_0"], [2, 3])
    ]
    assert lord.value("select shardman.not_set_aside(1)") == "acc_0"
    cluster = lord.value("select cluster from shardman.local")
    assert [f"shardman_{cluster}_1_{n}" for n in (2, 3)] == lord.value(
        "select shardman.synchronous_channels(1)"
    )
    lord.run(
        f"update shardman.cmd_steps set state = 'done' where cmd_id = {cmd_id} and kind = 'returned'"
    )
    assert lord.rows("select * from shardman.returns_of(1)") == []


def test_what_a_running_command_lets_others_know(nodes: Nodes) -> None:
    lord = prepared(nodes)
    plan = next(p for c, p in plans() if c.name == "create_replica")
    cmd_id = submitted(lord, "create_replica")
    store(lord.dsn, cmd_id, plan)
    assert lord.value("select shardman.opens_channel(1, 4, 0)") == cmd_id
    assert lord.value("select shardman.opens_channel(1, 4, %s)", cmd_id) is None
    assert lord.value("select shardman.opens_channel(4, 1, 0)") is None
    assert lord.value("select shardman.synchronous_channels(1)") == []
    lord.run(f"update shardman.cmd_steps set state = 'started' where cmd_id = {cmd_id}")
    cluster = lord.value("select cluster from shardman.local")
    assert lord.value("select shardman.synchronous_channels(1)") == [f"shardman_{cluster}_1_4"]
    assert lord.value("select shardman.synchronous_channels(1, %s)", cmd_id) == []
    lord.run(
        f"update shardman.cmd_log set status = 'failed', error = 'x', ended_at = now() where id = {cmd_id}"
    )
    assert lord.value("select shardman.synchronous_channels(1)") == []


def test_the_end_of_an_epoch_writes_nothing_down(nodes: Nodes) -> None:
    lord = prepared(nodes)
    plan = next(p for c, p in plans() if c.name == "create_replica")
    cmd_id = submitted(lord, "create_replica")
    with pytest.raises(Refused):
        store(lord.dsn, cmd_id, plan, epoch=2)
    for table in ("cmd_steps", *(state.table for state in get_args(State))):
        assert lord.value(f"select count(*) from shardman.{table} where cmd_id = %s", cmd_id) == 0


def test_it_goes_with_its_command(nodes: Nodes) -> None:
    lord = prepared(nodes)
    plan = next(p for c, p in plans() if c.name == "create_replica")
    cmd_id = submitted(lord, "create_replica")
    store(lord.dsn, cmd_id, plan)
    lord.run(f"delete from shardman.cmd_log where id = {cmd_id}")
    assert (
        lord.value("select count(*) from shardman.channel_changes where cmd_id = %s", cmd_id) == 0
    )


def test_no_sql_reads_the_args_of_a_step() -> None:
    """They belong to the step: a field may be renamed in Python. Only the journal hands them through."""
    reads = re.compile(r"\bargs\s*(->|@>|\?|#>)|\b\w+\.args\b")
    found = [
        (folder, entry.name, line.strip())
        for folder in ("routines", "views", "queries")
        for entry in files("shardman.sql").joinpath(folder).iterdir()
        for line in entry.read_text("utf-8").splitlines()
        if reads.search(line)
    ]
    assert {(folder, name) for folder, name, _ in found} <= {("queries", "journal.sql")}
    assert not [line for _, _, line in found if re.search(r"args\s*(->|@>|\?|#>|-)", line)]
