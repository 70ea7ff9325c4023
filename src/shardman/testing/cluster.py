"""A local cluster with the verbs that tests need."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import sql

from shardman.local import LocalCluster
from shardman.local.daemon import tail
from shardman.local.server import SCRAM_ITERATIONS, StopMode
from shardman.pg.connection import SyncConnection

Query = LiteralString | sql.SQL | sql.Composed
Params = Sequence[object] | Mapping[str, object] | None

LORD = 0


class CommandResult(NamedTuple):
    """How a command ended."""

    status: str
    error: str | None
    result: str | None
    code: str | None = None
    data: dict[str, Any] | None = None


class Cluster:
    """Servers in a temporary directory; `close` leaves neither process nor file."""

    def __init__(
        self,
        *,
        workers: int = 3,
        bare: bool = False,
        pg_bin: str | Path | None = None,
        fsync: bool = False,
        stock: bool = False,
        settings: Mapping[str, str | int] | None = None,
    ) -> None:
        """Makes it and, unless it is ``bare``, starts everything; ``stock``: on servers with nothing but
        the required settings."""
        # A hash that is slow to compute protects passwords that can be guessed, and slows down log-ins.
        quick = {} if fsync else {SCRAM_ITERATIONS: 1}
        # Not pytest's own temporary directory: the servers' account may not enter root's.
        self._parent = Path(tempfile.mkdtemp(prefix="shardman-test-"))
        self._parent.chmod(0o755)
        try:
            self.local = LocalCluster.create(
                self._parent / "cluster",
                workers,
                pg_bin=pg_bin,
                fsync=fsync,
                stock=stock,
                settings={**quick, **(settings or {})},
            )
            if bare:
                self.local.start_servers()
            else:
                self.local.up()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop and remove everything."""
        if hasattr(self, "local"):
            self.local.down(wipe=True)
        shutil.rmtree(self._parent, ignore_errors=True)

    # -- where things are -----------------------------------------------------------------------

    @property
    def lord_dsn(self) -> str:
        """The lord's database."""
        return self.local.lord_dsn

    @property
    def worker_dsns(self) -> dict[int, str]:
        """The workers, by node id."""
        return self.local.worker_dsns

    def dsn(self, node_id: int) -> str:
        """One node; 0 is the lord's."""
        return self.local.server(node_id).dsn

    @property
    def password(self) -> str:
        """The superuser's, on every server."""
        assert self.local.state.password is not None
        return self.local.state.password

    def logs(self, lines: int = 40) -> str:
        """The end of every log, for the report of a failed test."""
        files = sorted((self.local.directory / "log").glob("*.log"))
        return "\n".join(f"--- {each.name}\n{tail(each, lines=lines)}" for each in files)

    # -- failures -------------------------------------------------------------------------------

    def stop_node(self, node_id: int, mode: StopMode | str = StopMode.FAST) -> None:
        """Stop a server, `fast` or `immediate`."""
        self.local.stop_node(node_id, mode)

    def start_node(self, node_id: int) -> None:
        """Start a server; returns once it answers."""
        self.local.start_node(node_id)

    def kill_node(self, node_id: int) -> None:
        """SIGKILL to the postmaster and all its children, as a power cut."""
        self.local.kill_node(node_id)

    def stop_lord(self, *, kill: bool = False) -> None:
        """Stop the shardlord; with `kill` by SIGKILL."""
        self.local.stop_lord(kill=kill)

    def start_lord(self) -> None:
        """Start the shardlord."""
        self.local.start_lord()

    @property
    def lord_pid(self) -> int | None:
        """The shardlord's process, for signals."""
        return self.local.lord_pid

    def add_worker(self) -> int:
        """One more server, added to the cluster; returns its node id."""
        return self.local.add_worker()

    def add_server(self) -> str:
        """One more server that is running but no node yet; returns how to connect."""
        server = self.local.add_servers(1)[0]
        self.local.start_servers()
        return server.dsn

    # -- SQL ------------------------------------------------------------------------------------

    def connect(self, node_id: int, **options: Any) -> SyncConnection:
        """A connection of the test's own, autocommit unless told otherwise."""
        return psycopg.connect(self.dsn(node_id), **{"autocommit": True, **options})

    def sql(self, node_id: int, query: Query, params: Params = None) -> list[tuple[Any, ...]]:
        """Run one statement on a node; its rows, or none for a statement without any."""
        with self.connect(node_id) as node:
            done = node.execute(query, params)
            return done.fetchall() if done.description else []

    def value(self, node_id: int, query: Query, params: Params = None) -> Any:
        """The one value that a query on a node gives."""
        (row,) = self.sql(node_id, query, params)
        return row[0]

    def submit(self, query: Query, params: Params = None, *, node_id: int = LORD) -> int:
        """Submit a command, `select shardman.move_part(...)`; returns its id at once."""
        return int(self.value(node_id, query, params))

    def wait(self, cmd_id: int, seconds: float = 120) -> CommandResult:
        """Wait for a command; one that takes longer than that is returned as it is."""
        with self.connect(LORD) as lord:
            lord.execute(
                "select shardman.cmd_wait(%s, make_interval(secs => %s))", (cmd_id, seconds)
            )
            row = lord.execute(
                # Whatever columns the server's version of the schema has.
                "select to_jsonb(l) from shardman.cmd_log l where id = %s",
                (cmd_id,),
            ).fetchone()
        assert row is not None, f"there is no command {cmd_id}"
        entry = row[0]
        return CommandResult(
            entry["status"],
            entry["error"],
            entry["result"],
            entry.get("error_code"),
            entry.get("result_data"),
        )

    def cmd(self, query: Query, params: Params = None, *, seconds: float = 120) -> CommandResult:
        """Submit a command on the lord and wait for it."""
        return self.wait(self.submit(query, params), seconds)

    def commands_left(self) -> int:
        """How many commands wait or run, those that the shardlord itself submitted included."""
        left = "select count(*) from shardman.cmd_log where status in ('waiting', 'in progress')"
        return int(self.value(LORD, left))
