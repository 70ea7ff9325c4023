"""A user's mistake is answered in words and with an exit code, never with a traceback; passwords are
not shown."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import psycopg
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from shardman.cli.app import build
from shardman.local import ports
from shardman.pg.connect import undisturbed
from shardman.pg.wording import plain, scrub

Shardman = Callable[..., Any]


def sql_commands() -> set[str]:
    """The SQL functions that submit a command."""
    text = files("shardman.sql").joinpath("routines", "30_commands.sql").read_text()
    return set(re.findall(r"shardman\.submit\('(\w+)'", text))


def help_of(*command: str) -> str:
    done = CliRunner().invoke(build(), [*command, "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done.output


def test_there_is_a_command_for_each_sql_command() -> None:
    verbs = {name.replace("_", "-") for name in sql_commands()}
    assert len(verbs) >= 7
    assert verbs <= set(get_command(build()).commands)  # type: ignore[attr-defined]
    for verb in verbs:
        assert "--plan" in help_of(verb)


def test_every_command_has_help() -> None:
    for name in get_command(build()).commands:  # type: ignore[attr-defined]
        assert len(help_of(name)) > 100


def test_a_command_is_found_without_the_others() -> None:
    group: Any = get_command(build())
    for name, command in group.commands.items():
        alone: Any = get_command(build([name]))
        assert vars(alone.commands[name]).keys() == vars(command).keys()
        assert alone.commands[name].help == command.help
    alone = get_command(build(["status"]))
    assert list(alone.commands) == ["status"]


def test_status_loads_neither_the_verbs_nor_the_client() -> None:
    look = (
        "import sys; from shardman.cli.app import build; build(['status']);"
        "print(*(m for m in sys.modules if m.startswith(('shardman.commands', 'shardman.client'))))"
    )
    done = subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True)
    assert done.stdout.split() in ([], ["shardman.commands"])


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
    "arguments", [("status",), ("log", "--follow"), ("move-part", "acc_0", "2")]
)
def test_an_error_has_a_code_for_programs(program: Shardman, arguments: tuple[str, ...]) -> None:
    port = ports.choose()
    dsn = f"host=127.0.0.1 port={port} dbname=x user=u password=geheim"
    said = program(*arguments, "--json", dsn=dsn)
    assert said.code == 1
    assert json.loads(said.out)["error_code"] == "node_unreachable"
    assert json.loads(said.out)["error"].startswith(f"cannot reach 127.0.0.1:{port}/x")
    assert "geheim" not in said.out
    assert program(*arguments, dsn=dsn).out == ""


@pytest.mark.parametrize(
    "dsn",
    [
        "geheim",
        "host=x geheim",
        "postgresql://u:gehe%zzim@h/d",
        "a=geheim",
        "postgresql://u:ge/geheim@h/d",
        "postgresql://u:1/geheim@h/d",
        "postgresql://u:x@geheim@h/d",
        "postgres://u:ge#x/geheim@h:5/d",
    ],
)
@pytest.mark.parametrize("command", ["status", "init", "lord"])
def test_a_malformed_connection_string_is_not_echoed(
    program: Shardman, command: str, dsn: str
) -> None:
    said = program(command, dsn) if command != "status" else program(command, dsn=dsn)
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


@pytest.mark.parametrize(
    ("secret", "said"),
    [("b", "cannot be reached"), ("be", "bereft"), ("geheim", "x***x")],
)
def test_a_short_password_is_not_told_by_what_is_left_out(secret: str, said: str) -> None:
    given = said.replace("***", secret)
    assert plain(psycopg.OperationalError(given), {"password": secret}) == said
    alone = psycopg.OperationalError(f"no {secret} here")
    assert plain(alone, {"password": secret}) == "no *** here"


@pytest.mark.parametrize("arguments", [("check", "--patience", "inf"), ("check", "--patience", "nan"),
                                       ("wait", "1", "--timeout", "inf")])  # fmt: skip
def test_a_time_without_an_end_is_wrong_usage(
    program: Shardman, arguments: tuple[str, ...]
) -> None:
    said = program(*arguments, dsn="host=127.0.0.1 port=1")
    assert said.code == 2 and "Invalid value" in said.err


def test_a_string_for_replication_gives_an_ordinary_session() -> None:
    given = undisturbed({"replication": "database", "options": "-c work_mem=1MB"})
    assert given["replication"] == "false"
    assert given["options"].startswith("-c work_mem=1MB -c statement_timeout=0")


@pytest.mark.parametrize("text", ["password=geheim x", "password = 'ge heim'", "PASSWORD=geheim",
                                  "postgresql://bob:geheim@h/d", "postgresql://bob:x@geheim@h/d",
                                  "postgres://bob:ge/geheim#1@h/d", "sslpassword=geheim"])  # fmt: skip
def test_scrub(text: str) -> None:
    assert "heim" not in scrub(text)
    assert "***" in scrub(text)
