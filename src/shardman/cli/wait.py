"""Follows a command until it has ended, with a live progress bar where there is a terminal."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType
from typing import Self

import psycopg
import typer
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from shardman import units
from shardman.cli import output
from shardman.cli.exits import Exit
from shardman.client import Client, Result
from shardman.client.client import connect
from shardman.errors import Code, UserError
from shardman.nodes.status import why_waiting

_RECONNECT_SECONDS = 30.0
# A command that has not begun by then probably waits for something worth saying.
_EXPLAIN_SECONDS = 2.0
# As PostgreSQL writes an interval.
_TIME = re.compile(r"(\d+ days? )?\d+:\d\d:\d\d")


def follow(dsn: str, cmd_id: int, timeout: float | None, *, json: bool = False) -> None:
    """Waits for a command, prints how it ended, and exits accordingly."""
    result = until_ended(dsn, cmd_id, timeout)
    report(result, json=json)
    raise typer.Exit(_exit_code(result))


def until_ended(dsn: str, cmd_id: int, timeout: float | None = None) -> Result:
    """Waits for a command, with its progress, and returns how it ended."""
    until = None if timeout is None else time.monotonic() + timeout
    while True:
        try:
            with Display(dsn) as display:
                return _wait(dsn, cmd_id, until, display)
        except KeyboardInterrupt:
            _ask(dsn, cmd_id)


def _exit_code(result: Result) -> Exit:
    if not result.ended:
        return Exit.TIMEOUT
    return Exit.OK if result.ok else Exit.FAILED


def _wait(dsn: str, cmd_id: int, until: float | None, display: Display) -> Result:
    """Waits on a connection of its own, and on a new one when that is lost."""
    lost: float | None = None
    while True:
        try:
            with connect(dsn) as client:
                display.client, lost = client, None
                left = None if until is None else max(0.0, until - time.monotonic())
                return client.wait(cmd_id, left, display.show)
        except psycopg.OperationalError:
            lost = time.monotonic()
        except UserError:
            if lost is None:
                raise
            if time.monotonic() - lost > _RECONNECT_SECONDS:
                raise UserError(
                    f"lost the node; command {cmd_id} goes on",
                    f"Follow it through another node: shardman wait {cmd_id} --dsn DSN",
                    code=Code.NODE_UNREACHABLE,
                ) from None
        display.say("connection lost, trying again")
        time.sleep(0.5)


def report(result: Result, *, json: bool = False) -> None:
    """Prints how a command stands."""
    if json:
        output.print_json(result)
        return
    console = output.stdout()
    line = Text(f"command {result.id} ({result.title}): ") + output.status_text(result.status)
    if result.ended and result.duration is not None:
        line += Text(f" in {units.span(result.duration)}")
    console.print(line)
    if result.result:
        console.print(Text(result.result))
    if result.error:
        output.stderr().print(Text(f"error: {result.error}"))
    if not result.ended:
        output.stderr().print(
            Text(f"It goes on: shardman wait {result.id}, or shardman cancel {result.id}")
        )


def _ask(dsn: str, cmd_id: int) -> None:
    """After Ctrl-C: returns to keep waiting, exits to leave the command running."""
    console = output.stderr()
    choice = "l"
    if sys.stdin.isatty():
        try:
            console.print(
                f"\n[c]ancel command {cmd_id}, keep [w]aiting, [l]eave it running?", markup=False
            )
            choice = (console.input("c/w/l: ").strip().lower() or "w")[0]
        except (KeyboardInterrupt, EOFError):
            choice = "l"
    if choice == "c":
        with connect(dsn) as client:
            done = client.cancel(cmd_id)
        console.print(
            "cancelling; what it has begun is being undone"
            if done
            else "too late to cancel: it has ended or is past its point of no return"
        )
    elif choice == "l":
        console.print(f"It goes on: shardman wait {cmd_id}, or shardman cancel {cmd_id}")
        raise typer.Exit(Exit.INTERRUPTED)


class Display:
    """The progress of one command on stderr: live on a terminal, else a line for each step."""

    def __init__(self, dsn: str) -> None:
        self.client: Client | None = None
        self._dsn = dsn
        self._console = output.stderr()
        self._spinner = Spinner("dots")
        self._live = Live(console=self._console, transient=True, refresh_per_second=8)
        self._said = ""
        self._step: tuple[object, ...] = ()
        self._of_step: set[str] = set()
        self._begun = time.monotonic()
        self._reason: str | None = None
        self._explained = False

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def say(self, sentence: str) -> None:
        """Something about the wait itself."""
        if self._console.is_terminal:
            self._live.update(Text(sentence))
        elif sentence != self._said:
            self._console.print(Text(sentence))
        self._said = sentence

    def show(self, now: Result) -> None:
        """The command's state."""
        if now.ended:
            return
        if now.status == "waiting":
            self._explain()
        if not self._console.is_terminal:
            self._say_news(now)
            return
        parts = [now, *self._parts(now)]
        self._live.update(Group(*(_line(p, self._spinner, self._reason) for p in parts)))

    def _say_news(self, now: Result) -> None:
        """A line for each step and for each that it waits for: a lock is tried again and again, and
        how long somebody has held it is no news."""
        step = (now.status, now.attempt, now.step_no)
        if step != self._step:
            self._step, self._of_step = step, set()
        line = describe(now, self._reason)
        if (news := _TIME.sub("", line)) not in self._of_step:
            self.say(line)
        self._of_step |= {news, describe(replace(now, waits_for=None), self._reason)}

    def _parts(self, now: Result) -> list[Result]:
        """The commands that this one has begun and that are running."""
        return [] if self.client is None else self.client.running_parts(now.id)

    def _explain(self) -> None:
        """Once: why it has not begun."""
        if not self._explained and time.monotonic() - self._begun > _EXPLAIN_SECONDS:
            self._explained = True
            self._reason = why_waiting(self._dsn)


def describe(now: Result, reason: str | None = None) -> str:
    """A command's state in one line."""
    if now.status == "waiting":
        return f"command {now.id} ({now.title}) waits for {reason or 'its turn'}"
    return ", ".join((f"command {now.id} ({now.title})", *_whereabouts(now)))


def whereabouts(now: Result) -> str:
    """Which step of a command runs, and what it waits for."""
    return ", ".join(_whereabouts(now))


def _whereabouts(now: Result) -> Iterator[str]:
    if now.step_no is not None:
        yield f"step {now.step_no} of {now.steps_total}: {now.step_name}"
    if now.waits_for:
        yield f"waits for {now.waits_for}"


def amount(now: Result) -> str:
    """How much of the running step is done, where that is known."""
    words = []
    if now.bytes_done is not None:
        total = f" of {units.size(now.bytes_total)}" if now.bytes_total else ""
        words.append(f"{units.size(now.bytes_done)}{total}")
    if now.rows_done is not None:
        words.append(f"{now.rows_done:,} rows")
    return ", ".join(words)


def fraction(now: Result) -> float:
    """How much of the command is done, from 0 to 1; each step counts the same."""
    if now.step_no is None or not now.steps_total:
        return 0.0
    part = 0.0
    if now.bytes_done and now.bytes_total:
        part = min(1.0, now.bytes_done / now.bytes_total)
    return min(1.0, (now.step_no - 1 + part) / now.steps_total)


def _line(now: Result, spinner: Spinner, reason: str | None) -> Group:
    grid = Table.grid(padding=(0, 1))
    grid.add_row(
        spinner,
        Text(f"{now.title} ({now.id})", style="bold"),
        ProgressBar(total=1.0, completed=fraction(now), width=24),
        Text(f"{now.step_no or 0}/{now.steps_total or '?'}"),
        Text(units.span(now.duration) or "", style="dim"),
    )
    below = now.step_name or ""
    if now.status == "waiting":
        below = f"waits for {reason or 'its turn'}"
    rows: list[Table | Text] = [grid, Text(f"  {below} {amount(now)}".rstrip(), style="dim")]
    if now.waits_for:
        rows.append(Text(f"  waits for {now.waits_for}", style="yellow"))
    return Group(*rows)
