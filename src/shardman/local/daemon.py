"""The shardlord of a local cluster, used as any user would: through the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg

from shardman.errors import Code, UserError
from shardman.local import process
from shardman.local.state import ProcessState

STOP_SECONDS = 15.0
START_SECONDS = 10.0

# -P: what lies in the working directory is not mistaken for our package.
_SHARDMAN = (sys.executable, "-P", "-m", "shardman")


def init(dsn: str, log: Path) -> None:
    """Run `shardman init`; its words go to the log, and into the error if it fails."""
    done = subprocess.run(
        [*_SHARDMAN, "init"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=_environment(dsn),
    )
    log.write_text(done.stdout + done.stderr)
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip()
        raise UserError(
            f"shardman init failed: {words.removeprefix('error: ')}", code=Code.LOCAL_CLUSTER
        )


def start(dsn: str, log: Path) -> ProcessState:
    """Start `shardman lord` in a session of its own."""
    begin = log.stat().st_size if log.exists() else 0
    pid = process.spawn([*_SHARDMAN, "lord"], log=log, env=_environment(dsn))
    state = ProcessState(pid, process.started_at(pid))
    process.wait_until(lambda: not runs(state) or _connected(dsn), START_SECONDS, every=0.1)
    if not runs(state):
        raise UserError(
            f"The shardlord does not start:\n{tail(log, since=begin)}", code=Code.LOCAL_CLUSTER
        )
    return state


def _connected(dsn: str) -> bool:
    """Whether a shardlord is seen at work; with its database down there is nothing to wait for."""
    try:
        with psycopg.connect(dsn, connect_timeout=2) as lord:
            seen = lord.execute(
                "select from pg_stat_activity where application_name like 'shardman lord%' limit 1"
            )
            return seen.fetchone() is not None
    except psycopg.OperationalError:
        return True


def runs(state: ProcessState | None) -> bool:
    """Whether that very process lives."""
    return state is not None and process.is_same(state.pid, state.started)


def stop(state: ProcessState, *, kill: bool) -> None:
    """Stop it and wait; one that does not obey SIGTERM is killed."""
    if not runs(state):
        return
    process.send(state.pid, signal.SIGKILL if kill else signal.SIGTERM)
    if process.wait_until(lambda: not runs(state), STOP_SECONDS):
        return
    process.send(state.pid, signal.SIGKILL)
    process.wait_until(lambda: not runs(state), 5)


def tail(log: Path, *, lines: int = 15, since: int = 0) -> str:
    """The end of a log."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(since)
        text = file.read().decode(errors="replace")
    return "\n".join(text.rstrip().splitlines()[-lines:])


def _environment(dsn: str) -> dict[str, str]:
    """Unbuffered, so that the log is whole when the process is killed. The connection string is not among the
    arguments, which everybody on the machine can read."""
    return {**os.environ, "PYTHONUNBUFFERED": "1", "SHARDMAN_LORD_DSN": dsn}
