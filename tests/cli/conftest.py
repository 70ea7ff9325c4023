"""A lord's database without a shardlord: a thread plays it, so that tests decide what happens."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from shardman.cli.main import main
from shardman.pg.connection import SyncConnection
from shardman.testing.cluster import Cluster
from shardman.testing.plugin import ClusterFactory


@dataclass(frozen=True)
class Said:
    """What a run of the program said."""

    code: int
    out: str
    err: str


Shardman = Callable[..., Said]


def run(*arguments: str, dsn: str | None = None, stdin: str = "") -> Said:
    """Runs the program; in this process, which saves half a second each time."""
    out, err, before = StringIO(), StringIO(), sys.stdin
    sys.stdin = StringIO(stdin)
    code: object = 0
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main([*arguments, *(("--dsn", dsn) if dsn else ())])
    except SystemExit as done:
        code = done.code
    finally:
        sys.stdin = before
    assert isinstance(code, int | None)
    return Said(int(code or 0), out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def program() -> Shardman:
    return run


@pytest.fixture(scope="module")
def lord(module_cluster_factory: ClusterFactory) -> Cluster:
    """A lord's server, initialised; no worker and no shardlord."""
    made = module_cluster_factory(workers=0, bare=True)
    made.local.init()
    return made


@pytest.fixture
def shardman(lord: Cluster) -> Shardman:
    """Runs the program with --dsn."""
    return lambda *arguments, **options: run(*arguments, dsn=lord.lord_dsn, **options)


class Actor(threading.Thread):
    """Plays the shardlord: each command takes two steps and ends as the test wants."""

    def __init__(self, dsn: str, status: str, **columns: Any) -> None:
        super().__init__()
        self._dsn, self._status, self._columns = dsn, status, columns
        self.pause = 0.05
        self.over = threading.Event()

    def run(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as conn:
            while not self.over.wait(0.02):
                conn.execute(
                    "update shardman.lease set epoch = 1, holder = 'nobody',"
                    " renewed_at = clock_timestamp()"
                )
                row = conn.execute(
                    "select min(id) from shardman.cmd_log where status = 'waiting'"
                ).fetchone()
                if row and row[0]:
                    self._carry_out(conn, row[0])

    def _carry_out(self, conn: SyncConnection, cmd_id: int) -> None:
        for step in (1, 2):
            conn.execute(
                "update shardman.cmd_log set status = 'in progress', step_no = %s, steps_total = 2,"
                " started_at = coalesce(started_at, clock_timestamp()), step_name = %s,"
                " waits_for = 'pid 7' where id = %s",
                (step, f"thing {step}", cmd_id),
            )
            self.over.wait(self.pause)
        row = conn.execute(
            "select exists (select from shardman.cancel_requests where cmd_id = %s)", (cmd_id,)
        ).fetchone()
        conn.execute(
            "update shardman.cmd_log set status = %s::shardman.cmd_status, error = %s, result = %s,"
            " error_code = %s, result_data = %s, ended_at = clock_timestamp(), waits_for = null where id = %s",
            (
                "canceled" if row and row[0] else self._status,
                self._columns.get("error"),
                self._columns.get("result"),
                "canceled" if row and row[0] else self._columns.get("error_code"),
                Jsonb(data) if (data := self._columns.get("result_data")) else None,
                cmd_id,
            ),
        )


@pytest.fixture
def acting(lord: Cluster) -> Iterator[Callable[..., Actor]]:
    """`acting('failed', error=…)`: from now on commands end so."""
    playing: list[Actor] = []

    def act(status: str = "success", pause: float = 0.05, **columns: Any) -> Actor:
        actor = Actor(lord.lord_dsn, status, **columns)
        actor.pause = pause
        playing.append(actor)
        actor.start()
        return actor

    yield act
    for actor in playing:
        actor.over.set()
        actor.join()
