"""Processes that outlive us: start them, tell them from strangers, end them by their id."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from shardman.local.account import Account

# A child that ended stays a zombie until its parent asks. While we live we are that parent, so
# the handles are kept and asked whenever somebody wants to know whether the process lives.
_children: dict[int, subprocess.Popen[bytes]] = {}

_PROC = Path("/proc")


def spawn(
    argv: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str],
    account: Account | None = None,
) -> int:
    """Start a program in a session of its own, its output appended to `log`; returns its id.

    The log is opened by us and inherited, so the account needs no right to its directory.
    """
    with log.open("ab") as output:
        child = subprocess.Popen(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(env),
            cwd="/",
            start_new_session=True,
            **(account.spawn_options() if account else {}),
        )
    _children[child.pid] = child
    return child.pid


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    child = _children.get(pid)
    if child is not None:
        if child.poll() is None:
            return True
        del _children[pid]
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _state(pid) not in ("Z", "X")


def started_at(pid: int) -> str:
    """When the process started, to tell it from a later one that got the same id; "" if unknown."""
    fields = _stat(pid)
    return fields[19] if len(fields) > 19 else ""


def is_same(pid: int, started: str) -> bool:
    """Whether the process is the one that was started then."""
    return alive(pid) and (not started or started_at(pid) == started)


def runs_with(pid: int, argument: str) -> bool:
    """Whether the program was started with this argument; True where there is no way to tell.

    The command line can be read by everybody; the working directory of another account's process
    cannot, not even by root in a container.
    """
    if not _PROC.is_dir():
        return True
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(argument) in words


def living_in(directory: Path) -> list[int]:
    """The processes whose working directory is this one: every process of one PostgreSQL server.

    The way to find the children of a postmaster that was killed, where we may look; elsewhere they
    notice within a moment that their parent is gone.
    """
    wanted = str(directory)
    return [pid for pid in _all() if _cwd(pid) == wanted and _state(pid) not in ("Z", "X")]


def children_of(pid: int) -> list[int]:
    """The direct children of a process."""
    return [child for child in _all() if _stat(child)[1:2] == [str(pid)]]


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal; a process that is gone already is what the caller wanted."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def wait_until(condition: Callable[[], bool], seconds: float, every: float = 0.02) -> bool:
    """Poll; the last answer counts."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return condition()
        time.sleep(every)
    return True


def _all() -> list[int]:
    if not _PROC.is_dir():
        return []
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the program's name (which may contain anything)."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _state(pid: int) -> str:
    fields = _stat(pid)
    return fields[0] if fields else ""


def _cwd(pid: int) -> str:
    try:
        return str((_PROC / str(pid) / "cwd").readlink())
    except OSError:  # gone meanwhile, or somebody else's: not one of ours
        return ""
