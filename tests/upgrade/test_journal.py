"""What an earlier release left open in its journal goes on under this one."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg import sql

import shardman.steps  # noqa: F401  (registers every kind)
from shardman.model.plan import Json, Phase, Step
from shardman.pg.schema import install
from shardman.steps.base import UndoableStep, bind
from shardman.testing.cluster import Cluster
from upgrade.releases import Release

pytestmark = pytest.mark.server

#: What 0.1.0 wrote: a failover whose node is not back, one that removed a node, and a move, a set_sync, a
#: suspension, a drain, a switch and a failover that were under way.
STEPS: list[tuple[int, Phase, str, dict[str, Json], str]] = [
    (1, "prepare", "cut_channel", {"node": 2, "of": 1}, "done"),
    (1, "finish", "standbys", {"node": 2, "also": []}, "started"),
    (
        1,
        "finish",
        "returned",
        {"node": 1, "promoted": ["t_0"], "replicas": [], "publishers": [2], "subscribers": [2, 3]},
        "started",
    ),
    (2, "finish", "clean_node", {"node": 3}, "started"),
    (3, "prepare", "replica_identity", {"node": 2, "part": "t_1", "former": "default"}, "done"),
    (3, "prepare", "data_table", {"node": 3, "part": "t_1"}, "done"),
    (3, "prepare", "channel", {"src": 3, "dest": 2}, "done"),
    (3, "prepare", "standbys", {"node": 3, "also": [2]}, "started"),
    (3, "prepare", "register", {"part": "t_1", "src": 3, "dest": 2}, "planned"),
    (3, "prepare", "read_only", {"node": 3, "part": "t_1"}, "planned"),
    (
        3,
        "prepare",
        "fence_move",
        {"part": "t_1", "src": 2, "dest": 3, "old_links": [1], "new_links": [1]},
        "planned",
    ),
    (4, "finish", "set_draining", {"node": 2, "draining": True}, "planned"),
    (5, "switch", "set_draining", {"node": 2, "draining": False}, "planned"),
]
COMMANDS = {
    1: ("failover", "success", True),
    2: ("rm_node", "success", True),
    3: ("move_part", "in progress", False),
    4: ("drain_node", "in progress", False),
    5: ("drain_node", "in progress", False),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Callable[[], str]]:
    number = itertools.count()
    with closing(Cluster(workers=0, bare=True)) as cluster:

        def make() -> str:
            name = f"j{next(number)}"
            cluster.sql(0, sql.SQL("create database {}").format(sql.Identifier(name)))
            return psycopg.conninfo.make_conninfo(cluster.lord_dsn, dbname=name)

        yield make


@pytest.fixture(scope="module")
def upgraded(server: Callable[[], str], release: Release) -> Iterator[psycopg.Connection[Any]]:
    """A database in which the release wrote the journal, brought up to date."""
    dsn = server()
    release.install(dsn)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "insert into shardman.nodes (id, connstring, worker_status)"
            " select n, 'host=w' || n, 'active' from generate_series(1, 3) n"
        )
        for cmd, (kind, status, switched) in COMMANDS.items():
            conn.execute(
                "insert into shardman.cmd_log (id, cmd_type, status, attempt, switched, started_at, ended_at)"
                " values (%s, %s, %s, 1, %s, now(), case when %s then now() end)",
                (cmd, kind, status, switched, switched),
            )
        for n, (cmd, phase, kind, args, state) in enumerate(STEPS, start=1):
            conn.execute(
                "insert into shardman.cmd_steps (cmd_id, attempt, n, phase, kind, args, title, state)"
                " values (%s, 1, %s, %s, %s, %s, '', %s)",
                (cmd, n, phase, kind, json.dumps(args), state),
            )
        asyncio.run(_install(dsn))
        yield conn


async def _install(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        await install(conn)


def rows(conn: psycopg.Connection[Any], query: str) -> list[tuple[Any, ...]]:
    return conn.execute(query.encode()).fetchall()


def test_what_was_open_is_in_tables(upgraded: psycopg.Connection[Any]) -> None:
    assert rows(upgraded, "select * from shardman.returns_of(1)") == [(1, ["t_0"], [2, 3])]
    assert rows(upgraded, "select cmd_id, node from shardman.node_cleanings") == [(2, 3)]
    assert rows(upgraded, "select cmd_id, node, standby from shardman.standby_intents") == [
        (3, 3, 2)
    ]
    assert rows(
        upgraded, "select cmd_id, src, dest, change from shardman.channel_changes order by 1"
    ) == [(1, 1, 2, "cut"), (3, 3, 2, "open")]


def test_every_step_can_be_undone_and_finished(upgraded: psycopg.Connection[Any]) -> None:
    """Names of kinds, args and what is made are those that this version would have written."""
    for phase, kind, args, makes, state in rows(
        upgraded, "select phase, kind, args, makes, state from shardman.cmd_steps"
    ):
        bound = bind(phase, Step(kind, "", args))
        made = bound.makes() if isinstance(bound, UndoableStep) else None
        assert makes == (made.what if made is not None and made.shared else None), (kind, state)
