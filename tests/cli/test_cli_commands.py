"""What the program shows of a command on its way, and how it exits."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import psycopg
import pytest
from typer.rich_utils import rich_render_text

from shardman.cli import complete
from shardman.client import connect
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

Run = Callable[..., Any]
Acting = Callable[..., Any]


def test_a_command_that_succeeds(shardman: Run, acting: Acting) -> None:
    acting("success", pause=2, result="The cut-over took 13 ms.")
    said = shardman("move-part", "Acc_3", "2")
    assert said.code == 0
    assert "(move_part part_name=acc_3, dest=2): success" in said.out
    assert "The cut-over took 13 ms." in said.out
    assert "step 2 of 2: thing 2, waits for pid 7" in said.err


def test_a_command_that_fails(shardman: Run, acting: Acting) -> None:
    acting(
        "failed",
        error="acc is not a sharded table. See shardman.tables.",
        error_code="not_sharded",
        result_data={"sqlstate": "XX000"},
    )
    said = shardman("rebalance", "acc", "--json")
    assert said.code == 1
    told = json.loads(said.out)
    assert (told["status"], told["error_code"]) == ("failed", "not_sharded")
    assert told["result_data"] == {"sqlstate": "XX000"}
    assert (
        json.loads(shardman("log", "--limit", "1", "--json").out)[0]["error_code"] == "not_sharded"
    )
    assert "error: acc is not a sharded table" in shardman("rebalance", "acc").err


ODD_SETTINGS = {
    "datestyle": "SQL, DMY",
    "intervalstyle": "sql_standard",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "standard_conforming_strings": "off",
    "quote_all_identifiers": "on",
    "array_nulls": "off",
}


@pytest.fixture
def oddly_set(lord: Cluster) -> Iterator[None]:
    """The database of somebody who has changed what every new session begins with."""
    with psycopg.connect(lord.lord_dsn, autocommit=True) as conn:
        for name, value in ODD_SETTINGS.items():
            conn.execute(f"alter database postgres set {name} = '{value}'".encode())
        yield
        conn.execute("alter database postgres reset all")


@pytest.mark.usefixtures("oddly_set")
def test_settings_of_the_database_do_not_matter(shardman: Run, lord: Cluster) -> None:
    cmd_id = shardman("move-part", "acc_3", "2", "--no-wait").out.strip()
    assert shardman("wait", cmd_id, "--timeout", "0.3").code == 4
    assert "move_part part_name=acc_3, dest=2" in shardman("log").out
    assert "cluster" in shardman("status").out
    with connect(lord.lord_dsn, autocommit=False) as db:
        db.connection.rollback()
        assert isinstance(db.command(int(cmd_id)).submitted_at, datetime)


def test_no_wait_prints_the_id_for_wait(shardman: Run, acting: Acting) -> None:
    cmd_id = shardman("rebalance", "acc", "--by", "bytes", "--no-wait").out.strip()
    assert shardman("wait", cmd_id, "--timeout", "0.2").code == 4
    acting("done")
    said = shardman("wait", cmd_id)
    assert said.code == 0
    assert f"command {cmd_id} (rebalance relation=acc, by=bytes): done" in said.out


def test_timeout_leaves_the_command_alone(shardman: Run) -> None:
    said = shardman("rebalance", "acc", "--timeout", "0.3")
    assert said.code == 4
    assert "It goes on: shardman wait" in said.err


def test_cancel(shardman: Run, acting: Acting) -> None:
    cmd_id = shardman("rebalance", "acc", "--no-wait").out.strip()
    acting(pause=0.3)
    said = shardman("cancel", cmd_id)
    assert said.code == 0
    assert "canceled" in said.out
    again = shardman("cancel", cmd_id)
    assert again.code == 1
    assert "too late" in again.err


def silence(lord: Cluster, seconds: int) -> None:
    """The last sign of life of a shardlord is so old."""
    lord.sql(
        0,
        "update shardman.lease set epoch = 1, renewed_at = clock_timestamp() - make_interval(secs => %s)",
        (seconds,),
    )


def test_what_nobody_has_begun_can_be_cancelled_without_a_shardlord(
    shardman: Run, lord: Cluster
) -> None:
    silence(lord, 6)
    dsn = "host=nowhere password=geheim"
    cmd_id = shardman("add-node", "-", "--no-wait", stdin=dsn).out.strip()
    said = shardman("cancel", cmd_id, "--timeout", "10")
    assert (said.code, "canceled" in said.out) == (0, True), said
    assert (
        lord.value(0, "select count(*) from shardman.cmd_secrets where cmd_id = %s", (cmd_id,)) == 0
    )
    assert shardman("wait", cmd_id).code == 1
    assert shardman("cancel", cmd_id).code == 1


def test_a_shardlord_that_dies_before_it_hears_of_it(shardman: Run, lord: Cluster) -> None:
    silence(lord, 0)
    cmd_id = shardman("rebalance", "acc", "--no-wait").out.strip()
    # It was begun, and put back when a shardlord was told to stop.
    lord.sql(0, "update shardman.cmd_log set attempt = 1 where id = %s", (cmd_id,))
    said = shardman("cancel", cmd_id, "--timeout", "0.3")
    assert said.code == 4
    assert "It goes on" in said.err
    assert shardman("cancel", cmd_id, "--timeout", "20").code == 0


def test_a_command_that_runs_is_left_to_the_next_shardlord(shardman: Run, lord: Cluster) -> None:
    silence(lord, 6)
    cmd_id = shardman("rebalance", "acc", "--no-wait").out.strip()
    lord.sql(
        0,
        "update shardman.cmd_log set status = 'in progress', started_at = now() where id = %s",
        (cmd_id,),
    )
    assert shardman("cancel", cmd_id, "--timeout", "0.3").code == 4
    lord.sql(
        0,
        "update shardman.cmd_log set status = 'canceled', ended_at = now() where id = %s",
        (cmd_id,),
    )


def test_log_shows_all_of_it(shardman: Run, acting: Acting) -> None:
    acting("failed", error="no")
    shardman("rm-node", "9", "--force")
    assert "rm_node node_id=9, force=true" in shardman("log").out
    newest = json.loads(shardman("log", "--limit", "1", "--json").out)
    assert [(c["cmd_type"], c["error"]) for c in newest] == [("rm_node", "no")]


def test_there_is_no_such_command(shardman: Run) -> None:
    said = shardman("cancel", "999999")
    assert said.code == 1
    assert "there is no command 999999" in said.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("create-hash-partitions", "1", "t", " ", "4"),
        ("add-node", "host"),
        ("move-part", "a.b.c", "1"),
    ],
)
def test_cheap_mistakes_are_the_servers_words(shardman: Run, arguments: tuple[str, ...]) -> None:
    said = shardman(*arguments, "--no-wait")
    assert said.code == 1
    assert said.err.startswith("error: ")


def test_passwords_stay_out_of_sight(shardman: Run) -> None:
    secret = "host=nowhere dbname=x password=geheim"
    said = shardman("add-node", "-", "--timeout", "0.3", stdin=secret + "\n")
    assert said.code == 4
    shown = said.out + said.err + shardman("log").out + shardman("log", "--json").out
    assert "geheim" not in shown
    assert "host=nowhere" in shown


def test_exec_and_its_exit_codes(shardman: Run) -> None:
    said = shardman("exec", "select 1 as one, 'x' as two")
    assert said.code == 0
    assert "two" in said.out
    assert json.loads(shardman("exec", "select 1 as one", "--json").out) == [
        {"node": 0, "ok": True, "message": "SELECT 1", "rows": [{"one": 1}]}
    ]
    assert shardman("exec", "-", stdin="create temp table t (); drop table t").code == 0
    bad = shardman("exec", "select nonsense")
    assert bad.code == 1
    assert 'column "nonsense" does not exist' in bad.out
    assert shardman("exec", "select 1", "--nodes", "7").code == 1
    assert shardman("exec", "select 1", "--nodes", "x").code == 2


def rows_of(shardman: Run, statement: str) -> Any:
    said = shardman("exec", statement, "--json")
    assert said.code == 0, said
    return json.loads(said.out, parse_constant=pytest.fail)[0]["rows"]


def test_exec_shows_any_value(shardman: Run) -> None:
    odd = (
        "select 'infinity'::timestamptz as a, '0044-03-15 BC'::date as b, '2 mons'::interval as c,"
        " 'NaN'::float8 as d, '-Infinity'::numeric as e, null as f, array[1, null] as g,"
        " '24:00'::time as h, 1.5 as i, true as j, jsonb '{\"x\": [1]}' as k, repeat('9', 5000)::jsonb as l"
    )
    assert rows_of(shardman, odd) == [
        {
            "a": "infinity", "b": "0044-03-15 BC", "c": "2 mons", "d": "NaN", "e": "-Infinity", "f": None,
            "g": "{1,NULL}", "h": "24:00:00", "i": 1.5, "j": True, "k": {"x": [1]}, "l": "9" * 5000,
        }
    ]  # fmt: skip
    said = shardman("exec", odd)
    assert said.code == 0
    assert "0044-03-15 BC" in said.out


@pytest.mark.usefixtures("oddly_set")
def test_exec_reads_and_writes_as_the_database_is_set(shardman: Run) -> None:
    assert rows_of(shardman, "select '31/12/2013'::date as a") == [{"a": "31/12/2013"}]


def test_exec_keeps_columns_of_equal_names(shardman: Run) -> None:
    assert rows_of(shardman, "select 1 as a, 2 as a, 3 as a_2, 4 as a") == [
        {"a": 1, "a_3": 2, "a_2": 3, "a_4": 4}
    ]


def test_exec_reads_no_markup(shardman: Run) -> None:
    said = shardman("exec", """select '[/b]' as "[/]", '[red]x' as "[blue]y\"""")
    assert said.code == 0
    assert all(word in said.out for word in ("[/]", "[blue]y", "[/b]", "[red]x"))


@pytest.mark.parametrize(
    "statement",
    ["copy (select 1) to stdout", "copy pg_class from stdin", "select 1; copy pg_am to stdout"],
)
def test_exec_refuses_copy_to_and_from_itself(shardman: Run, statement: str) -> None:
    said = shardman("exec", statement)
    assert said.code == 1
    assert "node 0: error: COPY cannot" in said.out
    assert "Use psql" in said.out
    assert said.err == ""


def test_completion_reads_no_markup(
    shardman: Run, lord: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cmd_id = shardman("move-part", '"[/]_1"', "2", "--no-wait").out.strip()
    monkeypatch.setenv("SHARDMAN_DSN", lord.lord_dsn)
    ((found, text),) = complete.commands(cmd_id)
    assert found == cmd_id
    assert '"[/]_1"' in rich_render_text(text)


def test_status_says_what_is_wrong_and_what_to_do(
    lord: Cluster, shardman: Run, acting: Acting
) -> None:
    actor = acting()
    said = eventually(
        "nothing is wrong", lambda: shardman("status"), until=lambda s: s.code == 0, seconds=30
    )
    assert "Nothing is wrong." in said.out
    actor.over.set()
    actor.join()
    lord.sql(0, "update shardman.lease set renewed_at = clock_timestamp() - interval '6 s'")
    said = shardman("status")
    assert said.code == 3
    assert "gave no sign of life" in said.out
    assert "Start one: shardman lord" in said.out
    assert json.loads(shardman("status", "--json").out)["healthy"] is False


def test_no_shardlord_since_a_promotion(shardman: Run, lord: Cluster) -> None:
    silence(lord, 6)
    lord.sql(0, "update shardman.lease set holder = null, pid = null")
    assert "shardlord: none has acted since" in shardman("status").out


def test_there_is_no_such_node(shardman: Run) -> None:
    assert "error: there is no node 77." in shardman("promote-lord", "77").err


LEFT = {
    "replication slot shardman_{}_c98765": (
        "select pg_create_logical_replication_slot('shardman_{}_c98765', 'pgoutput')",
        "select pg_drop_replication_slot('shardman_{}_c98765')",
    ),
    "publication shardman_{}_c98765": (
        "create publication shardman_{}_c98765",
        "drop publication shardman_{}_c98765",
    ),
    "foreign server shardman_node_7_c98765": (
        "create server shardman_node_7_c98765 foreign data wrapper postgres_fdw",
        "drop server shardman_node_7_c98765",
    ),
    "table odd_aside_c98765": (
        "create table odd_aside_c98765 (a int)",
        "drop table odd_aside_c98765",
    ),
    "table shardman_c98765_odd": (
        "create table shardman_c98765_odd (a int)",
        "drop table shardman_c98765_odd",
    ),
    "trigger ~shardman_log_c98765_row on odd": (
        (
            'create table odd (a int); create trigger "~shardman_log_c98765_row" before insert on odd'
            " for each row execute function suppress_redundant_updates_trigger()"
        ),
        "drop table odd",
    ),
}


def test_leftovers_are_found(lord: Cluster, shardman: Run) -> None:
    cluster = lord.value(0, "select cluster from shardman.local")
    for make, _ in LEFT.values():
        lord.sql(0, make.replace("{}", cluster))
    try:
        found = json.loads(shardman("check", "--patience", "0", "--json").out)
        assert sorted(f["subject"] for f in found) == sorted(
            left.replace("{}", cluster) + " on node 0" for left in LEFT
        )
        assert {f["what"] for f in found} == {"left by command 98765, which is unknown"}
    finally:
        for _, drop in LEFT.values():
            lord.sql(0, drop.replace("{}", cluster))
    assert shardman("check", "--patience", "0").code == 0


class Terminal:
    """The program on a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        outer, inner = pty.openpty()
        self.fd = outer
        self.process = subprocess.Popen(
            [sys.executable, "-m", "shardman", *arguments],
            stdin=inner, stdout=inner, stderr=inner, start_new_session=True,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        )  # fmt: skip
        os.close(inner)
        self.shown = ""

    def until(self, words: str, seconds: float = 20) -> None:
        def shown() -> str:
            self._read()
            return self.shown

        eventually(
            f"{words!r} is shown", shown, until=lambda text: words in text, seconds=seconds, every=0
        )

    def _read(self) -> bool:
        if select.select([self.fd], [], [], 0.1)[0]:
            try:
                some = os.read(self.fd, 65536)
            except OSError:
                return False
            self.shown += some.decode(errors="replace")
            return bool(some)
        return True

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def end(self) -> int:
        while self.process.poll() is None:
            self._read()
        os.close(self.fd)
        return self.process.returncode


def patient(lord: Cluster, acting: Acting) -> Any:
    """An actor whose next command ends when the test lets it; what other tests left is over before."""
    actor = acting()
    eventually("no command waits or runs", lambda: not lord.commands_left(), every=0.05)
    actor.pause = 60
    return actor


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [("c", 1, "canceled"), ("w", 0, "success"), ("l", 130, "It goes on")],
)
def test_ctrl_c_asks(lord: Cluster, acting: Acting, answer: str, code: int, words: str) -> None:
    actor = patient(lord, acting)
    terminal = Terminal("rebalance", "acc", "--dsn", lord.lord_dsn)
    terminal.until("thing 1")
    terminal.interrupt()
    terminal.until("c/w/l")
    terminal.type(answer + "\n")
    if answer == "c":
        terminal.until("cancelling")
    if answer != "l":
        actor.over.set()
    assert terminal.end() == code
    assert words in terminal.shown


def test_without_a_terminal_ctrl_c_leaves_it_running(lord: Cluster, acting: Acting) -> None:
    patient(lord, acting)
    process = subprocess.Popen(
        [sys.executable, "-m", "shardman", "rebalance", "acc", "--dsn", lord.lord_dsn],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    said = ""
    while "thing 1" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=180)
    assert process.returncode == 130
    assert "It goes on" in err
