"""Numbers, times and JSON as the command line prints them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from shardman import units
from shardman.cli import output
from shardman.cli.wait import Display, amount, describe, fraction
from shardman.client import Result
from shardman.errors import UserError


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, None), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 kB"), (200 * 1024, "200 kB"),
     (5 * 1024**3, "5.0 GB"), (3 * 1024**4, "3.0 TB")],
)  # fmt: skip
def test_sizes(count: int | None, text: str | None) -> None:
    assert units.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0421, "42 ms"), (2.34, "2.3 s"), (125, "2 min 05 s"), (7384, "2 h 03 min")],
)
def test_spans(seconds: float, text: str) -> None:
    assert units.span(timedelta(seconds=seconds)) == text


def test_json_is_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json(
        {
            1: datetime(2026, 1, 2, tzinfo=UTC),
            "took": timedelta(seconds=1.5),
            "n": Decimal(3),
            "x": b"\x01",
            "list": [Result(1, "add_node", None, "waiting")],
        }
    )
    printed = json.loads(capsys.readouterr().out)
    assert printed["1"] == "2026-01-02T00:00:00+00:00"
    assert (printed["took"], printed["n"], printed["x"]) == (1.5, 3, "\\x01")
    assert printed["list"][0]["status"] == "waiting"


def test_numbers_that_json_does_not_have(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json([float("nan"), float("-inf"), Decimal("NaN"), Decimal("Infinity"),
                       {"x": float("inf")}, Decimal("1e5000"), 1.5, Decimal("0.5")])  # fmt: skip
    printed = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert printed == [
        "NaN",
        "-Infinity",
        "NaN",
        "Infinity",
        {"x": "Infinity"},
        "1E+5000",
        1.5,
        0.5,
    ]


def test_nothing_in_a_table_is_markup(capsys: pytest.CaptureFixture[str]) -> None:
    output.stdout().print(output.table(("[/]", "[red]b"), [("[/x]", 1)], title="[/title]"))
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("[/]", "[red]b", "[/x]", "[/title]"))


RUNNING = Result(
    7, "move_part", "part_name=acc_3, dest=2", "in progress", step_no=3, steps_total=4, step_name="copy acc_3",
    bytes_done=512, bytes_total=1024, rows_done=12345,
)  # fmt: skip


def test_progress_in_words_and_as_a_fraction() -> None:
    assert (
        describe(RUNNING)
        == "command 7 (move_part part_name=acc_3, dest=2), step 3 of 4: copy acc_3"
    )
    assert amount(RUNNING) == "512 B of 1.0 kB, 12,345 rows"
    assert fraction(RUNNING) == pytest.approx(0.625)


def test_without_a_terminal_a_line_is_not_said_twice(capsys: pytest.CaptureFixture[str]) -> None:
    with Display("") as display:
        for waits_for in (
            None,
            "pid 7 (for 00:00:01)",
            None,
            "a lock",
            "pid 7 (for 00:01:02)",
            None,
        ):
            display.show(replace(RUNNING, waits_for=waits_for))
        display.show(replace(RUNNING, step_no=4, waits_for="a lock"))
    said = [line.partition("copy acc_3")[2] for line in capsys.readouterr().err.splitlines()]
    assert said == [
        "",
        ", waits for pid 7 (for 00:00:01)",
        ", waits for a lock",
        ", waits for a lock",
    ]


def test_a_command_that_has_not_begun_says_what_it_waits_for() -> None:
    waiting = Result(7, "rebalance", "acc", "waiting")
    assert describe(waiting) == "command 7 (rebalance acc) waits for its turn"
    assert fraction(waiting) == 0


def test_a_failed_command_can_be_raised() -> None:
    with pytest.raises(UserError, match="no such table"):
        Result(7, "rebalance", "x", "failed", error="no such table").check()
    assert Result(7, "rebalance", "x", "done").check().ok
