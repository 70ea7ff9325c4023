"""`shardman log`, `wait` and `cancel`: what became of commands."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Annotated

import psycopg
import typer
from rich.text import Text

from shardman import units
from shardman.cli import output, wait
from shardman.cli.exits import Exit
from shardman.cli.options import CommandId, Dsn, Json, Timeout
from shardman.client import Client, Result
from shardman.client.client import Watcher, connect

app = typer.Typer()
_PANEL = "Commands that were submitted"
_POLL_SECONDS = 0.5
_ASK_AGAIN_SECONDS = 5.0


@app.command(rich_help_panel=_PANEL)
def log(
    dsn: Dsn,
    limit: Annotated[int, typer.Option(min=0, help="Show this many, the newest.")] = 20,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on and print what changes.")
    ] = False,
    json: Json = False,
) -> None:
    """Show the commands, the newest last."""
    with connect(dsn) as client:
        shown = list(reversed(client.commands(limit)))
        if json and not follow:
            output.print_json(shown)
            return
        if json:
            for each in shown:
                output.print_json_line(each)
        else:
            output.stdout().print(_table(shown))
        if follow:
            for each in _changes(client, shown):
                _print_change(each, json=json)


def _table(shown: list[Result]) -> object:
    rows = [
        (
            r.id,
            r.title if r.parent is None else f"  {r.title}",
            output.status_text(r.status),
            units.moment(r.submitted_at),
            r.submitted_by,
            units.span(r.duration),
            r.error or r.result or (wait.whereabouts(r) if not r.ended else None),
        )
        for r in shown
    ]
    return output.table(("id", "command", "status", "submitted", "by", "took", "result"), rows)


def _changes(client: Client, shown: list[Result]) -> Iterator[Result]:
    """Every command that is new or has another status or step, for ever."""
    known = {r.id: _state(r) for r in shown}
    newest = max(known, default=0)
    while True:
        time.sleep(_POLL_SECONDS)
        for result in client.since(newest, [i for i, s in known.items() if s is not None]):
            if known.get(result.id, ()) != _state(result):
                known[result.id] = _state(result)
                yield result
        newest = max(known, default=0)


def _state(result: Result) -> tuple[object, ...] | None:
    """What makes a line worth printing again; None once it has ended."""
    return None if result.ended else (result.status, result.step_no, result.waits_for)


def _print_change(result: Result, *, json: bool) -> None:
    if json:
        output.print_json_line(result)
        return
    now = time.strftime("%H:%M:%S")
    if not result.ended:
        output.stdout().print(Text(f"{now} {wait.describe(result)}"))
        return
    line = Text(f"{now} command {result.id} ({result.title}): ")
    line += output.status_text(result.status)
    output.stdout().print(line + Text(f" {result.error or result.result or ''}".rstrip()))


@app.command("wait", rich_help_panel=_PANEL)
def wait_(cmd_id: CommandId, dsn: Dsn, timeout: Timeout = None, json: Json = False) -> None:
    """Wait until a command has ended, showing how far it is."""
    wait.follow(dsn, cmd_id, timeout, json=json)


@app.command(rich_help_panel=_PANEL)
def cancel(
    cmd_id: CommandId,
    dsn: Dsn,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Do not wait until all is undone.")
    ] = False,
    timeout: Timeout = None,
    json: Json = False,
) -> None:
    """Cancel a command that waits or runs; what it has begun is undone.

    The exit code is 0 when it was cancelled, 1 when it was too late.
    """
    with connect(dsn) as client:
        accepted = client.cancel(cmd_id)
        result = client.command(cmd_id)
        if accepted and not no_wait:
            with wait.Display(dsn) as display:
                result = _until_undone(client, cmd_id, timeout, display.show)
    wait.report(result, json=json)
    if not accepted and not json:
        output.stderr().print("too late: it has ended or is past its point of no return")
    if accepted and not no_wait and not result.ended:
        raise typer.Exit(Exit.TIMEOUT)
    cancelled = accepted and result.status != "success"
    raise typer.Exit(Exit.OK if cancelled else Exit.FAILED)


def _until_undone(client: Client, cmd_id: int, timeout: float | None, watch: Watcher) -> Result:
    """Waits, and asks again: a shardlord that has died since did not hear of it."""
    until = math.inf if timeout is None else time.monotonic() + timeout
    while True:
        left = max(0.0, until - time.monotonic())
        result = client.wait(cmd_id, min(left, _ASK_AGAIN_SECONDS), watch)
        if result.ended or time.monotonic() >= until:
            return result
        with contextlib.suppress(psycopg.OperationalError):
            client.cancel(cmd_id)
