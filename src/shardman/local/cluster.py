"""A cluster on this machine: the lord's server, workers, the shardlord."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from psycopg.conninfo import make_conninfo

from shardman.errors import Code, UserError
from shardman.local import daemon, joining
from shardman.local.account import account_for, require_reachable
from shardman.local.programs import find_programs, make_usable
from shardman.local.server import Server, StopMode
from shardman.local.state import DESCRIPTION, PASSFILE, STATE, ServerState, State
from shardman.pg.conninfo import without_secrets

LORD = 0  # the id of the lord's server on the command line

# initdb and the first start keep a processor busy each.
_AT_ONCE = 2


class LocalCluster:
    """A directory with servers in it. Everything it knows is in files: any process can go on.

    `create` or `open` it, then `up`; or `start_servers` for servers that know nothing of shardman.
    """

    def __init__(self, directory: Path, state: State) -> None:
        self.directory = directory
        self.state = state
        self._account = account_for(directory)
        self.servers = [self._server(each) for each in state.servers]

    # -- making and opening ---------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        directory: str | Path,
        workers: int = 3,
        *,
        pg_bin: str | Path | None = None,
        fsync: bool = True,
        stock: bool = False,
        settings: Mapping[str, str | int] | None = None,
    ) -> LocalCluster:
        """Prepare an empty directory; starts nothing and runs no initdb yet.

        Args:
            directory: where it will live.
            workers: how many.
            pg_bin: the server programs' directory; found by itself when None.
            fsync: off only where a crash of the machine may cost everything.
            stock: whether the servers keep PostgreSQL's own settings but for the required ones.
            settings: further settings of all servers.
        """
        path = Path(directory).expanduser().resolve()
        found = find_programs(pg_bin)
        _require_empty(path)
        account = account_for(path)
        require_reachable(account, path.parent)
        try:
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
            account.give(path)
        except OSError as error:
            raise UserError(
                f"the directory {path} cannot be made: {error.strerror}",
                "Give another one",
                code=Code.LOCAL_CLUSTER,
            ) from error
        require_reachable(account, path)
        programs = make_usable(found, account, path)
        (path / "log").mkdir(exist_ok=True)
        state = State.new(programs, fsync=fsync, stock=stock, settings=dict(settings or {}))
        for number in range(workers + 1):
            state.add_server(number)
        state.save(path)
        return cls(path, state)

    @classmethod
    def open(cls, directory: str | Path) -> LocalCluster:
        """The cluster that lives in the directory."""
        path = Path(directory).expanduser().resolve()
        if not (path / STATE).exists():
            raise UserError(
                f"There is no local cluster in {path}",
                f"Make one: shardman local up --dir {path}",
                code=Code.LOCAL_CLUSTER,
            )
        return cls(path, State.load(path))

    @classmethod
    def exists(cls, directory: str | Path) -> bool:
        """Whether a cluster was made there."""
        return (Path(directory).expanduser() / STATE).exists()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One command at a time on a directory: two must not start one server twice."""
        handle = os.open(self.directory, os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"Another command is at work on {self.directory}",
                    "Wait until it has ended",
                    code=Code.LOCAL_CLUSTER,
                ) from None
            yield
        finally:
            os.close(handle)

    def use_programs(self, pg_bin: str | Path | None) -> None:
        """Take these programs from the next start on; unnamed, only if the old ones are gone."""
        if pg_bin is None and self.state.programs.path("postgres").exists():
            return
        programs = make_usable(find_programs(pg_bin), self._account, self.directory)
        self.state.use(programs)
        self._save()
        for server in self.servers:
            server.programs = programs

    # -- who is who -----------------------------------------------------------------------------

    @property
    def lord_server(self) -> Server:
        """The server of the lord's database."""
        return self.servers[0]

    @property
    def lord_dsn(self) -> str:
        """How to connect to the lord's database."""
        return self.lord_server.dsn

    @property
    def worker_dsns(self) -> dict[int, str]:
        """How to connect to the workers, by node id."""
        workers = zip(self.state.servers[1:], self.servers[1:], strict=True)
        return {state.node_id: server.dsn for state, server in workers}

    def shown(self, dsn: str) -> str:
        """A connection string as it may be printed: with the file of the password in its place."""
        if self.state.password is None:
            return dsn
        return make_conninfo(without_secrets(dsn), passfile=str(self.directory / PASSFILE))

    def server(self, node_id: int) -> Server:
        """The server of a node; 0 is the lord's."""
        if node_id == LORD:
            return self.lord_server
        for state, server in zip(self.state.servers[1:], self.servers[1:], strict=True):
            if state.node_id == node_id:
                return server
        known = ", ".join(str(each.node_id) for each in self.state.servers[1:])
        raise UserError(
            f"There is no node {node_id} in {self.directory}",
            f"The workers are {known or 'none'}; {LORD} is the lord's server",
            code=Code.LOCAL_CLUSTER,
        )

    # -- everything -----------------------------------------------------------------------------

    def up(self) -> None:
        """Servers, schema, shardlord, workers; does what is missing, so it also restarts.

        When it cannot, it stops whatever it started and leaves the files: the logs say why, and the
        next `up` goes on from there. A worker that cannot be added stops nobody else.
        """
        ran = [server for server in self.servers if server.pid() is not None]
        acted = self.lord_pid is not None
        try:
            self.start_servers()
            self.init()
            self.start_lord()
        except BaseException:  # Ctrl-C as well: nothing may stay behind
            self._stop_but(ran, acted)
            raise
        try:
            self.add_workers()
        except UserError:
            members = self._members()
            self._stop_but(ran + members, acted or len(members) > 1)
            raise
        except BaseException:
            self._stop_but(ran, acted)
            raise

    def _members(self) -> list[Server]:
        """The lord's server and those of the workers that were added; without any worker none."""
        added = [each.name for each in self.state.servers[1:] if each.added_id is not None]
        return [self.lord_server, *map(self._by_name, added)] if added else []

    def _stop_but(
        self, stay: Sequence[Server], lord_stays: bool, mode: StopMode = StopMode.FAST
    ) -> None:
        """Stops all servers but these, and the shardlord unless it stays."""
        if not lord_stays:
            self.stop_lord()
        leaving = [server for server in self.servers if server not in stay]
        for server in leaving:
            server.begin_stop(mode)
        for server in leaving:
            server.finish_stop()

    def add_worker(self) -> int:
        """One more server, started and added to the running cluster; returns its node id."""
        self.add_servers(1)
        self.start_servers()
        self.add_workers()
        return self.state.servers[-1].node_id

    def down(self, *, wipe: bool = False) -> None:
        """Leave no process, and with `wipe` no file of ours."""
        self.stop(StopMode.IMMEDIATE if wipe else StopMode.FAST)
        if wipe:
            self._wipe()

    def stop(self, mode: StopMode = StopMode.FAST) -> None:
        """Stop the shardlord, then all servers at the same time."""
        self._stop_but((), lord_stays=False, mode=mode)

    # -- servers --------------------------------------------------------------------------------

    def add_servers(self, count: int) -> list[Server]:
        """Write down `count` more servers; `start_servers` makes them."""
        added = []
        for _ in range(count):
            self.state.add_server(len(self.state.servers))
            added.append(self._server(self.state.servers[-1]))
        self.servers += added
        self._save()
        return added

    def start_servers(self, servers: Sequence[Server] | None = None) -> None:
        """Make and start every server that is not there, or these; knows nothing of shardman."""
        pool = ThreadPoolExecutor(_AT_ONCE)
        running = [pool.submit(self._start, server) for server in (servers or self.servers)]
        try:
            wait(running)
        finally:
            # Before the first error is raised, and after Ctrl-C: no thread of ours goes on starting
            # what the caller is about to stop.
            pool.shutdown(wait=True, cancel_futures=True)
        self._save()
        for each in running:
            each.result()

    def start_node(self, node_id: int) -> None:
        """Start one server."""
        self._start(self.server(node_id))
        self._save()

    def stop_node(self, node_id: int, mode: StopMode | str = StopMode.FAST) -> None:
        """Stop one server."""
        self.server(node_id).stop(StopMode(mode))

    def kill_node(self, node_id: int) -> None:
        """End one server as a power cut would."""
        self.server(node_id).kill()

    # -- shardman -------------------------------------------------------------------------------

    def init(self) -> None:
        """Install the schema in the lord's database; safe to repeat."""
        daemon.init(self.lord_dsn, self.directory / "log" / "init.log")

    def start_lord(self) -> None:
        """Start the shardlord if it does not run."""
        if daemon.runs(self.state.shardlord):
            return
        self.state.shardlord = daemon.start(self.lord_dsn, self._lord_log)
        self._save()

    def stop_lord(self, *, kill: bool = False) -> None:
        """Stop the shardlord, politely or not."""
        if self.state.shardlord is None:
            return
        daemon.stop(self.state.shardlord, kill=kill)
        self.state.shardlord = None
        self._save()

    @property
    def lord_pid(self) -> int | None:
        """The process id of the shardlord, if it runs."""
        known = self.state.shardlord
        return known.pid if known and daemon.runs(known) else None

    def add_workers(self) -> None:
        """Add every worker that is no node yet, and write cluster.json."""
        new = [each for each in self.state.servers[1:] if each.added_id is None]
        dsns = [self._by_name(each.name).dsn for each in new]
        ids, refused = joining.add_nodes(self.lord_dsn, dsns)
        for each, dsn in zip(new, dsns, strict=True):
            each.added_id = ids.get(dsn)
        self._save()
        if refused is not None:
            raise UserError(
                refused.what, _with_log(refused.hint, self._lord_log), code=refused.code
            ) from refused
        self.describe()

    def describe(self) -> None:
        """Write cluster.json: enough to connect."""
        workers = [{"id": node_id, "dsn": dsn} for node_id, dsn in self.worker_dsns.items()]
        self.state.describe(self.directory, {"lord": {"dsn": self.lord_dsn}, "workers": workers})

    # -- inside ---------------------------------------------------------------------------------

    @property
    def _lord_log(self) -> Path:
        return self.directory / "log" / "shardlord.log"

    def _by_name(self, name: str) -> Server:
        return next(server for server in self.servers if server.name == name)

    def _start(self, server: Server) -> None:
        server.create()
        server.start()

    def _server(self, state: ServerState) -> Server:
        return Server(
            name=state.name,
            data=self.directory / state.name,
            log=self.directory / "log" / f"{state.name}.log",
            programs=self.state.programs,
            account=self._account,
            port=state.port,
            fsync=self.state.fsync,
            settings=self.state.settings,
            stock=self.state.stock,
            password=self.state.password,
        )

    def _save(self) -> None:
        for state, server in zip(self.state.servers, self.servers, strict=True):
            state.port = server.port
        self.state.save(self.directory)

    def _wipe(self) -> None:
        """Remove what we made, the state file last: after a crash in here `--wipe` works again."""
        servers = [name for each in self.servers for name in (each.name, f"{each.name}.new")]
        for each in self.servers:
            (self.directory / f"{each.name}.password").unlink(missing_ok=True)
        for name in (*servers, "log", "programs"):
            shutil.rmtree(self.directory / name, ignore_errors=True)
        for name in (DESCRIPTION, PASSFILE, STATE):
            (self.directory / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # somebody keeps files of his own here
            self.directory.rmdir()


def _require_empty(directory: Path) -> None:
    if not directory.exists():
        return
    if not directory.is_dir():
        raise UserError(
            f"{directory} is not a directory", "Choose another --dir", code=Code.LOCAL_CLUSTER
        )
    entries: Sequence[Path] = list(directory.iterdir())
    if any(entry.name == STATE for entry in entries):
        raise UserError(
            f"There is a local cluster in {directory} already",
            f"Remove it: shardman local down --dir {directory} --wipe",
            code=Code.LOCAL_CLUSTER,
        )
    if entries:
        raise UserError(
            f"{directory} is not empty and holds no local cluster",
            "Choose a --dir that is empty or does not exist yet",
            code=Code.LOCAL_CLUSTER,
        )


def _with_log(hint: str, log: Path) -> str:
    tail = daemon.tail(log)
    said = f"The end of {log}:\n{tail}" if tail else f"{log} is empty"
    return f"{hint}. {said}" if hint else said
