"""No lock that anybody can take decides who acts, whether commands are accepted, or nodes brought in line."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from importlib.resources import files

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from shardman.errors import UserError
from shardman.pg.connection import SyncConnection
from shardman.pg.initialize import initialize
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

pytestmark = pytest.mark.server

#: What version 0.1 locked.
FORMER = ("shardman lord", "shardman accept", "shardman reconcile", "shardman schema")
TABLES = """
select oid::regclass::text from pg_class where relnamespace = 'shardman'::regnamespace and relkind in ('r', 'v')
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with closing(Cluster(workers=1)) as made:
        for node in (0, 1):
            made.sql(node, "create role mallory login password 'mallory'")
            # What a careless administrator might give.
            made.sql(node, "grant usage on schema shardman to mallory")
            made.sql(node, "grant select on all tables in schema shardman to mallory")
            made.sql(node, "create role victor login password 'victor' in role shardman_viewer")
            made.sql(node, "create role alice login password 'alice' in role shardman_operator")
        yield made


@pytest.fixture
def mallory(cluster: Cluster) -> Iterator[list[SyncConnection]]:
    """A session of an ordinary role on the lord and on the worker."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                psycopg.connect(cluster.dsn(node), user="mallory", password="mallory")
            )
            for node in (0, 1)
        ]


def works(cluster: Cluster) -> None:
    """A shardlord takes over, accepts from every node, and a node is brought in line."""
    cluster.stop_lord(kill=True)
    cluster.start_lord()
    for node in (0, 1):
        done = cluster.wait(cluster.submit("select shardman.rm_node(99)", node_id=node), 20)
        assert done.code == "no_such_node"
    cluster.sql(1, "alter server shardman_node_0 options (set port '1')")
    assert cluster.value(1, "select shardman.reconcile()") == 0
    options = "select srvoptions::text from pg_foreign_server where srvname = 'shardman_node_0'"
    assert "port=1," not in cluster.value(1, options)


def test_advisory_locks_hold_nothing_up(cluster: Cluster, mallory: list[SyncConnection]) -> None:
    for session in mallory:
        for name in FORMER:
            session.execute("select pg_advisory_lock(hashtextextended(%s, 0))", (name,))
    works(cluster)
    asyncio.run(initialize(cluster.lord_dsn))


def test_who_may_read_can_lock_nothing_that_matters(
    cluster: Cluster, mallory: list[SyncConnection], monkeypatch: pytest.MonkeyPatch
) -> None:
    for node, session in enumerate(mallory):
        for (table,) in cluster.sql(node, TABLES):
            for mode in ("row share", "share update exclusive", "exclusive"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege), session.transaction():
                    session.execute(f"lock table {table} in {mode} mode nowait".encode())
            session.execute(f"lock table {table} in access share mode".encode())
    works(cluster)
    # Views have to be made anew: whoever has read them is waited for, not for ever, and named.
    monkeypatch.setattr("shardman.pg.initialize.PATIENCE_S", 0.0)
    with pytest.raises(
        UserError, match=rf"in use by mallory \(pid {mallory[0].info.backend_pid}, "
    ):
        asyncio.run(initialize(cluster.lord_dsn))


def test_status_and_commands_of_roles_that_may(cluster: Cluster) -> None:
    """The program asks the other nodes as whom it was called."""

    def run(user: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        dsn = make_conninfo(cluster.dsn(1), user=user, password=user)
        return subprocess.run(
            [sys.executable, "-P", "-m", "shardman", *arguments],
            env={**os.environ, "SHARDMAN_DSN": dsn},
            capture_output=True,
            text=True,
            check=False,
        )

    eventually(
        "a viewer sees what a superuser sees",
        lambda: run("victor", "status"),
        until=lambda done: done.returncode == 0,
        seconds=20,
    )
    assert run("victor", "log").returncode == 0
    assert "no worker 99" in run("alice", "rm-node", "99").stderr
    refused = run("victor", "rm-node", "99")
    assert refused.returncode == 1 and "permission denied" in refused.stderr


def test_nothing_of_ours_takes_an_advisory_lock() -> None:
    for folder in ("routines", "views", "queries"):
        for script in files("shardman.sql").joinpath(folder).iterdir():
            assert "advisory" not in script.read_text(), script
