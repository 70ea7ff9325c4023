"""One PostgreSQL server: made, configured, started, stopped."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from shardman.errors import Code, UserError
from shardman.local import ports, process
from shardman.local.account import Account
from shardman.local.programs import Programs
from shardman.local.state import write_private

READY_SECONDS = 60.0
STOP_SECONDS = 30.0
# For what passes by itself: the remains of a killed server, somebody's short use of our port.
_PATIENCE_SECONDS = 5.0
_CONFIG = "shardman-local.conf"


class StopMode(StrEnum):
    """How a server is stopped."""

    FAST = "fast"  # roll back what runs, write everything out
    IMMEDIATE = "immediate"  # at once; the next start recovers from the WAL


_SIGNALS = {StopMode.FAST: signal.SIGINT, StopMode.IMMEDIATE: signal.SIGQUIT}

#: What sharding needs of any server (shardman.pg.server checks it), and what a test of it does.
REQUIRED: Mapping[str, str | int] = {
    # TCP only: the path of a socket below a deep directory may exceed the system's 107 bytes.
    "listen_addresses": ports.HOST,
    "unix_socket_directories": "",
    "wal_level": "logical",
    "max_prepared_transactions": 10,
    "log_line_prefix": "%m [%p] %q%a ",
}
#: Also what is good for many nodes and partitions on one machine.
SETTINGS: Mapping[str, str | int] = {
    **REQUIRED,
    "max_connections": 200,
    "shared_buffers": "128MB",
    "jit": "off",
    "max_prepared_transactions": 200,
    "max_wal_senders": 64,
    "max_replication_slots": 64,
    "max_logical_replication_workers": 64,
    "max_worker_processes": 128,
    "max_locks_per_transaction": 1024,
    # A worker that lost its connection tries again after this; the default is 5 s.
    "wal_retrieve_retry_interval": "200ms",
    "log_lock_waits": "on",
}

#: Of PostgreSQL 16 and newer. Fewer than its 4096 are quicker to log in with, but Java's driver refuses them.
SCRAM_ITERATIONS = "scram_iterations"


@dataclass
class Server:
    """A server and the directory it lives in; knows whether it runs from the operating system."""

    name: str
    data: Path
    log: Path
    programs: Programs
    account: Account
    port: int | None = None  # chosen at the first start, then kept: others have written it down
    fsync: bool = True
    settings: Mapping[str, str | int] = field(default_factory=dict)
    stock: bool = False  # all but what is required is left as PostgreSQL has it
    password: str | None = None  # of the superuser; None: the server asks for none

    @property
    def dsn(self) -> str:
        """How to connect: a database that every server has, the superuser and his password."""
        if self.port is None:
            raise UserError(
                f"The server {self.name} has never been started",
                "Start it first",
                code=Code.LOCAL_CLUSTER,
            )
        secret = "" if self.password is None else f" password={self.password}"
        return f"host={ports.HOST} port={self.port} dbname=postgres user=postgres{secret}"

    # -- making ---------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether initdb has finished here."""
        return self.data.exists()

    def create(self) -> None:
        """Run initdb; never copies of another server's files, for they share its identifier.

        Under another name first: what is called `data` is a whole server, and what is left of an
        initdb that was killed is known to hold nobody's data.
        """
        if self.exists():
            return
        new = self.data.with_name(self.data.name + ".new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        self.account.give(new)
        failed = self._initdb(new, "C.UTF-8")
        if failed:  # a slim system knows no C.UTF-8; initdb has cleaned up after itself
            failed = self._initdb(new, "C")
        if failed:
            raise UserError(
                f"initdb of {self.name} failed: {last_lines(failed)}", code=Code.LOCAL_CLUSTER
            )
        with (new / "postgresql.conf").open("a") as config:
            config.write(f"\ninclude '{_CONFIG}'\n")
        new.rename(self.data)

    def _initdb(self, data: Path, locale: str) -> str:
        argv: list[str | Path] = [self.programs.path("initdb"), "-D", data, "-U", "postgres"]
        argv += ["-E", "UTF8", f"--locale={locale}", "--no-sync", "--no-instructions"]
        # The superuser's password is made by initdb.
        argv += [f"--set={n}={v}" for n, v in self._wanted().items() if n == SCRAM_ITERATIONS]
        with self._password_file() as file:
            argv += ["-A", "trust"] if file is None else ["-A", "scram-sha-256", "--pwfile", file]
            done = subprocess.run(
                argv,
                capture_output=True,
                text=True,
                check=False,
                env=clean_environment(),
                cwd="/",
                **self.account.spawn_options(),
            )
        return "" if done.returncode == 0 else (done.stderr or done.stdout).strip()

    def _wanted(self) -> dict[str, str | int]:
        """The settings of this server's own, as far as its version knows them."""
        return {
            n: v
            for n, v in self.settings.items()
            if n != SCRAM_ITERATIONS or self.programs.major >= 16
        }

    @contextlib.contextmanager
    def _password_file(self) -> Iterator[Path | None]:
        """What initdb reads the password from; gone afterwards. One that a crash leaves is replaced."""
        if self.password is None:
            yield None
            return
        path = self.data.with_name(self.data.name + ".password")
        write_private(path, self.password + "\n")
        try:
            self.account.give(path)
            yield path
        finally:
            path.unlink()

    def configure(self) -> None:
        """Write our settings; ALTER SYSTEM, which others use, overrides them."""
        settings = {
            **(REQUIRED if self.stock else SETTINGS),
            "fsync": "on" if self.fsync else "off",
            "cluster_name": self.name,
        }
        if self.programs.major >= 18 and not self.stock:
            settings["max_active_replication_origins"] = 64
        if self.port is not None:
            settings["port"] = self.port
        settings.update(self._wanted())
        path = self.data / _CONFIG
        path.write_text("".join(f"{name} = {_quote(value)}\n" for name, value in settings.items()))
        self.account.give(path)

    # -- starting -------------------------------------------------------------------------------

    def start(self) -> None:
        """Start and wait until it answers; one that runs already is fine."""
        if self.pid() is not None:
            self._wait_ready(0)
            return
        self._require_version()
        fixed = self.port is not None
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            self.port = self.port if fixed else ports.choose()
            problem = self._try_start()
            if not problem:
                return
            temporary = _taken(problem) or _remains(problem)
            if not temporary or time.monotonic() > deadline:
                raise self._start_error(problem)
            if fixed or _remains(problem):
                time.sleep(0.3)

    def _try_start(self) -> str:
        """One attempt; what the server said if it gave up."""
        self._clear_stale_pid()
        self.configure()
        begin = self.log.stat().st_size if self.log.exists() else 0
        argv = [str(self.programs.path("postgres")), "-D", str(self.data)]
        child = process.spawn(argv, log=self.log, env=clean_environment(), account=self.account)
        return "" if self._wait_ready(child) else self._said_since(begin)

    def _wait_ready(self, child: int) -> bool:
        """Until connections are accepted; False if the process that we started has ended."""

        def settled() -> bool:
            return self.ready() or bool(child and not process.alive(child))

        if not process.wait_until(settled, READY_SECONDS):
            raise UserError(
                f"The server {self.name} is not ready after {READY_SECONDS:.0f} s",
                f"Its log is {self.log}",
                code=Code.LOCAL_CLUSTER,
            )
        return self.ready()

    def _start_error(self, problem: str) -> UserError:
        if _taken(problem):
            return UserError(
                f"The server {self.name} cannot start: its port {self.port} is taken",
                "Stop the program that listens there; the other nodes know this port",
                code=Code.LOCAL_CLUSTER,
            )
        return UserError(
            f"The server {self.name} does not start: {last_lines(problem)}",
            f"Its log is {self.log}",
            code=Code.LOCAL_CLUSTER,
        )

    def _said_since(self, begin: int) -> str:
        with self.log.open("rb") as log:
            log.seek(begin)
            return log.read().decode(errors="replace")

    def _require_version(self) -> None:
        made_by = (self.data / "PG_VERSION").read_text().strip()
        if made_by != str(self.programs.major):
            raise UserError(
                f"{self.data} was made by PostgreSQL {made_by}, "
                f"but the programs in {self.programs.bin} are {self.programs.major}",
                "Name the programs of the same major version with --pg-bin",
                code=Code.LOCAL_CLUSTER,
            )

    # -- observing ------------------------------------------------------------------------------

    def pid(self) -> int | None:
        """The postmaster, if it runs; a file left by a killed one is told from a living server."""
        lines = self._pid_lines()
        if not lines or not lines[0].strip().lstrip("-").isdigit():
            return None
        pid = abs(int(lines[0]))
        runs = process.alive(pid) and process.runs_with(pid, str(self.data))
        return pid if runs else None

    def ready(self) -> bool:
        """Whether the postmaster says so in its file, which it does once it accepts connections."""
        lines = self._pid_lines()
        return len(lines) >= 8 and lines[7].strip() == "ready" and self.pid() is not None

    def _pid_lines(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _clear_stale_pid(self) -> None:
        """Remove the file of a dead postmaster whose number lives on, as a zombie or a stranger.

        PostgreSQL would believe in it and refuse to start. Not while any process of the old server
        lives: then the file is what keeps two servers off the same data.
        """
        if self._pid_lines() and self.pid() is None and not process.living_in(self.data):
            (self.data / "postmaster.pid").unlink(missing_ok=True)

    # -- stopping -------------------------------------------------------------------------------

    def stop(self, mode: StopMode = StopMode.FAST) -> None:
        """Stop and wait until no process is left; one that does not run is fine."""
        self.begin_stop(mode)
        self.finish_stop()

    def begin_stop(self, mode: StopMode = StopMode.FAST) -> None:
        """Ask it to stop, so that several can stop at the same time."""
        pid = self.pid()
        if pid is not None:
            process.send(pid, _SIGNALS[mode])

    def finish_stop(self, seconds: float = STOP_SECONDS) -> None:
        """Wait for the end; one that lingers (a subscriber that never confirms) is cut short."""
        if process.wait_until(self.gone, seconds):
            return
        self.begin_stop(StopMode.IMMEDIATE)
        if not process.wait_until(self.gone, 5):
            self.kill()

    def gone(self) -> bool:
        """Whether no process of it is left, not even a child of a killed postmaster."""
        return self.pid() is None and not process.living_in(self.data)

    def kill(self) -> None:
        """SIGKILL to the postmaster and all its children: the machine's power cord."""
        family = process.living_in(self.data)
        pid = self.pid()
        if pid is not None:
            process.send(pid, signal.SIGSTOP)  # so that it starts no new children meanwhile
            family = [pid, *process.children_of(pid)]
        for member in family:
            process.send(member, signal.SIGKILL)
        process.wait_until(lambda: not any(map(process.alive, family)) and self.gone(), 10)


def clean_environment() -> dict[str, str]:
    """Ours without PGHOST, PGDATA and the like, which would reach server and clients alike."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C", "LANG": "C"}


def last_lines(text: str, count: int = 5) -> str:
    """The end of a log, on one line."""
    return " | ".join(text.strip().splitlines()[-count:]) or "it said nothing"


def _quote(value: str | int) -> str:
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


def _taken(problem: str) -> bool:
    return "Address already in use" in problem or "could not create any TCP/IP sockets" in problem


def _remains(problem: str) -> bool:
    """What a start right after kill -9 meets, until the last child of the old server has ended."""
    return "pre-existing shared memory block" in problem or "lock file" in problem
