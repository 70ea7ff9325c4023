"""As whom the servers run: PostgreSQL refuses to run as root."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from shardman.errors import Code, UserError


class SpawnOptions(TypedDict, total=False):
    """Those arguments of `subprocess` that drop privileges."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True)
class Account:
    """An operating-system account; `drops` says that we are root and must become it."""

    name: str
    uid: int
    gid: int
    drops: bool

    def spawn_options(self) -> SpawnOptions:
        """For `subprocess`: nothing when we are that account already."""
        if not self.drops:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def give(self, path: Path) -> None:
        """Make this account the owner of one file or directory."""
        if self.drops:
            os.chown(path, self.uid, self.gid)

    def can(self, test: str, path: Path) -> bool:
        """Ask as that account (`test -x path` and the like): the kernel knows about ACLs."""
        argv = ["/bin/sh", "-c", f'test {test} "$1"', "sh", str(path)]
        done = subprocess.run(argv, check=False, cwd="/", **self.spawn_options())
        return done.returncode == 0


def account_for(directory: Path) -> Account:
    """Ourselves; for root the owner of the directory, else `postgres`, else `nobody`."""
    if os.geteuid() != 0:
        entry = _entry(os.geteuid())
        return Account(
            entry.pw_name if entry else str(os.geteuid()), os.geteuid(), os.getegid(), False
        )
    if directory.exists() and directory.stat().st_uid != 0:
        owner = directory.stat()
        entry = _entry(owner.st_uid)
        return Account(
            entry.pw_name if entry else str(owner.st_uid), owner.st_uid, owner.st_gid, True
        )
    return _unprivileged(("postgres", "nobody"))


def _unprivileged(names: Sequence[str]) -> Account:
    for name in names:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid, True)
    raise UserError(
        f"PostgreSQL refuses to run as root, and there is no account {' or '.join(names)}",
        "Create one of them, or run this as an ordinary user",
        code=Code.LOCAL_CLUSTER,
    )


def _entry(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:  # a container may run under a uid that nobody named
        return None


def require_reachable(account: Account, directory: Path) -> None:
    """Refuse a directory below one that the servers' account may not enter, naming the obstacle."""
    if not account.drops:
        return
    for path in [*reversed(directory.parents), directory]:
        if path.exists() and not account.can("-x", path):
            raise UserError(
                f"The servers run as {account.name}, who may not enter {path}",
                f"Choose a --dir elsewhere (for example below /var/tmp), or: chmod o+x {path}",
                code=Code.LOCAL_CLUSTER,
            )
