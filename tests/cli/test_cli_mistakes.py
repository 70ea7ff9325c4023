"""A user's mistake is answered in words and with an exit code, never with a traceback; passwords are
not shown."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from shardman.cli.app import app
from shardman.local import ports
from shardman.pg.reach import scrub

Shardman = Callable[..., Any]


def sql_commands() -> set[str]:
    """The SQL functions that submit a command."""
    text = files("shardman.sql").joinpath("routines", "30_commands.sql").read_text()
    return set(re.findall(r"shardman\.submit\('(\w+)'", text))


def help_of(*command: str) -> str:
    done = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done.output


def test_there_is_a_command_for_each_sql_command() -> None:
    verbs = {name.replace("_", "-") for name in sql_commands()}
    assert len(verbs) >= 7
    assert verbs <= set(get_command(app).commands)  # type: ignore[attr-defined]
    for verb in verbs:
        assert "--plan" in help_of(verb)


def test_every_command_has_help() -> None:
    for name in get_command(app).commands:  # type: ignore[attr-defined]
        assert len(help_of(name)) > 100


def test_without_a_dsn_it_is_wrong_usage(
    program: Shardman, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHARDMAN_DSN", raising=False)
    said = program("status")
    assert said.code == 2
    assert "SHARDMAN_DSN" in said.err


@pytest.mark.parametrize("arguments", [("status",), ("check",), ("log",), ("exec", "select 1"),
                                       ("rebalance", "acc"), ("plan", "rebalance", "acc"),
                                       ("wait", "1"), ("cancel", "1")])  # fmt: skip
def test_a_server_that_is_not_there(program: Shardman, arguments: tuple[str, ...]) -> None:
    port = ports.choose()
    said = program(*arguments, dsn=f"host=127.0.0.1 port={port} dbname=x user=u password=geheim")
    assert said.code == 1
    assert f"error: cannot reach 127.0.0.1:{port}/x: Connection refused." in said.err
    assert "Check that" in said.err
    assert "geheim" not in said.out + said.err


@pytest.mark.parametrize(
    "dsn", ["geheim", "host=x geheim", "postgresql://u:gehe%zzim@h/d", "a=geheim"]
)
@pytest.mark.parametrize("command", ["status", "init"])
def test_a_malformed_connection_string_is_not_echoed(
    program: Shardman, command: str, dsn: str
) -> None:
    said = program(command, dsn) if command == "init" else program(command, dsn=dsn)
    assert said.code == 1
    assert "the connection string cannot be read" in said.err
    assert "geheim" not in said.out + said.err


def test_as_a_program_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "shardman", "status", "--dsn", "host=127.0.0.1 port=1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot reach 127.0.0.1:1")
    assert "Traceback" not in done.stderr


def test_a_database_without_a_cluster(program: Shardman, lord: Any) -> None:
    dsn = lord.lord_dsn.replace("dbname=postgres", "dbname=template1")
    for arguments in (("status",), ("check",), ("exec", "select 1")):
        said = program(*arguments, dsn=dsn)
        assert said.code == 1
        assert "is not part of a cluster" in said.err
    assert program("log", dsn=dsn).code == 1


@pytest.mark.parametrize("text", ["password=geheim x", "password = 'ge heim'", "PASSWORD=geheim",
                                  "postgresql://bob:geheim@h/d", "sslpassword=geheim"])  # fmt: skip
def test_scrub(text: str) -> None:
    assert "heim" not in scrub(text)
    assert "***" in scrub(text)
