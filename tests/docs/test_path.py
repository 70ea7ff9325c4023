"""The path from empty machines to a watched cluster, as docs/operations.md has it, with other addresses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.pages import ROOT, blocks
from shardman.local import Programs, ports
from shardman.local.account import account_for
from shardman.local.programs import make_usable

pytestmark = [pytest.mark.server, pytest.mark.pg(16)]

BLOCKS = [b for b in blocks(ROOT / "docs/operations.md") if b.marks.startswith("path ")]
#: For what every shell of the path has to have done before it ends.
SHELL = ("bash", "-euo", "pipefail", "-c")


class Machines:
    """Three servers' directories, and one for the program."""

    def __init__(self, programs: Programs) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="shardman-path-"))
        self.home.chmod(0o755)
        self.account = account_for(self.home)
        self.bin = make_usable(programs, self.account, self.home).bin
        self.ports = {n: ports.choose() for n in (1, 2, 3)}
        self.metrics, self.web = ports.choose(), ports.choose()
        sql = [b.code for b in blocks(ROOT / "docs/rights.md") if b.language == "sql"]
        for n in self.ports:
            place = self.place(n)
            place.mkdir()
            (place / "superuser.pw").write_text("super-secret\n")
            (place / "role.sql").write_text(sql[0].replace("'…'", "'keeper-secret'"))
            (place / "database.sql").write_text(sql[1])
            for each in (place, *place.iterdir()):
                self.account.give(each)
        (self.home / "ops").mkdir()

    def place(self, n: int) -> Path:
        return self.home / f"db{n}"

    def here(self, code: str) -> str:
        """The same with our addresses."""
        for n, port in self.ports.items():
            code = code.replace(f"host=db{n}.example", f"host=127.0.0.1 port={port}")
        code = code.replace("10.0.0.0/24", "127.0.0.1/32").replace(
            "127.0.0.1:9187", f"127.0.0.1:{self.metrics}"
        )
        return code.replace("shardman web ", f"shardman web --listen 127.0.0.1:{self.web} ")

    def env(self, **more: str) -> dict[str, str]:
        paths = (str(self.bin), str(Path(sys.executable).parent), os.environ["PATH"])
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "SHARDMAN"))}
        return kept | {"PATH": os.pathsep.join(paths), **more}

    def on_each(self, code: str) -> None:
        for n, port in self.ports.items():
            place = self.place(n)
            env = self.env(PGDATA=str(place / "data"), PGPORT=str(port), PGHOST=str(place))
            # Where the socket is, is the system's.
            code_here = self.here(code).replace(
                "listen_addresses = '*'",
                f"listen_addresses = '*'\nunix_socket_directories = '{place}'",
            )
            run(code_here, place, env, **self.account.spawn_options())

    def close(self) -> None:
        for n in self.ports:
            env = self.env(PGDATA=str(self.place(n) / "data"))
            stop = [*SHELL, "pg_ctl -m immediate stop"]
            subprocess.run(stop, env=env, check=False, cwd="/", **self.account.spawn_options())
        shutil.rmtree(self.home, ignore_errors=True)


def run(code: str, place: Path, env: dict[str, str], **options: object) -> str:
    # Into files: what goes on in the background would hold a pipe open.
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.Popen(
            [*SHELL, code], cwd=place, env=env, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True, **options,
        )  # type: ignore[call-overload] # fmt: skip
        code_ = done.wait(240)
        output.seek(0)
        said = output.read()
    assert code_ == 0, f"{code}\n{said}"
    return str(said)


@pytest.fixture
def machines(pg_programs: Programs) -> Iterator[Machines]:
    made = Machines(pg_programs)
    try:
        yield made
    finally:
        made.close()


def test_the_path_is_there() -> None:
    assert [b.marks.split()[1] for b in BLOCKS] == ["each"] * 2 + ["ops"] * 6


def test_from_empty_machines_to_a_watched_cluster(machines: Machines) -> None:
    for block in BLOCKS:
        if block.marks == "path each":
            machines.on_each(block.code)
    ops = machines.home / "ops"
    # One shell, as the operator's: what it has exported and what it has started stays.
    code = "\n".join(machines.here(b.code) for b in BLOCKS if b.marks == "path ops")
    asks = f"{sys.executable} {Path(__file__).with_name('ask_page.py')} {machines.web} {machines.metrics}"
    stops = "trap 'kill $(jobs -p); wait || true' EXIT"
    said = run(f"{stops}\n{code}\n{asks}", ops, machines.env())
    assert "1000 | 500500" in said
    assert said.count("shardman_node_up{") == 3 + 3
    assert "alice sees orders" in said
    assert "secret" not in (ops / "lord.log").read_text()
