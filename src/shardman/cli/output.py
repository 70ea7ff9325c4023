"""How results are printed: tables for people, JSON for programs. Results go to stdout, all else to
stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shardman.errors import UserError
from shardman.pg.wording import scrub

# Into a file or a pipe a table is as wide as it needs to be, rather than folded at 80.
_PIPE_WIDTH = 400


def stdout() -> Console:
    """For results. Made anew each time: tests replace sys.stdout."""
    return Console(
        width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False, soft_wrap=False
    )


def stderr() -> Console:
    """For progress, questions and errors."""
    return Console(stderr=True, width=None if sys.stderr.isatty() else _PIPE_WIDTH, highlight=False)


_for_programs = False


def remember(json: bool) -> bool:
    """Whether errors are printed as JSON too; the callback of --json."""
    global _for_programs  # noqa: PLW0603  (an error is printed when the command's options are gone)
    _for_programs = json
    return json


def print_error(error: UserError) -> None:
    """What was wrong and what to do, in words on stderr; for programs as JSON on stdout too."""
    if _for_programs:
        print_json_line({"error": scrub(str(error)), "error_code": error.code})
    print(f"error: {scrub(error.what)}.", file=sys.stderr)
    if error.hint:
        print(scrub(error.hint), file=sys.stderr)


def print_json(value: Any) -> None:
    """One JSON document."""
    sys.stdout.write(as_json(value))


def as_json(value: Any) -> str:
    """The text of a JSON document, for people to read."""
    return json.dumps(_plain(value), indent=2, default=_encode) + "\n"


def print_json_line(value: Any) -> None:
    """One JSON document on one line, for streams."""
    sys.stdout.write(json.dumps(_plain(value), default=_encode) + "\n")
    sys.stdout.flush()


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, float | Decimal):
        return _number(value)
    return value


def _number(value: float | Decimal) -> int | float | str:
    """JSON has neither NaN nor infinity, and readers of it no larger number: text instead."""
    if not math.isfinite(float(value)):
        return str(Decimal(value))
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return int(value)
    return float(value)


def _encode(value: Any) -> Any:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes | memoryview):
        return "\\x" + bytes(value).hex()
    return str(value)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> Table:
    """A table; numbers to the right, None as nothing. Nothing in it is read as markup."""
    made = Table(
        box=SIMPLE_HEAD,
        title=None if title is None else Text(title),
        title_justify="left",
        pad_edge=False,
        title_style="bold",
    )
    listed = [list(row) for row in rows]
    for n, name in enumerate(columns):
        values = [row[n] for row in listed if row[n] is not None]
        right = bool(values) and all(_is_number(v) for v in values)
        made.add_column(Text(name), justify="right" if right else "left", overflow="fold")
    for row in listed:
        made.add_row(*(_cell(value) for value in row))
    return made


def _is_number(value: Any) -> bool:
    if isinstance(value, Text):
        return value.justify == "right"
    return isinstance(value, int | float | Decimal)


def _cell(value: Any) -> Text:
    if isinstance(value, Text):
        return value
    if value is None:
        return Text("")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    return Text(str(value))


_COLOURS = {
    "success": "green",
    "done": "green",
    "failed": "red",
    "canceled": "yellow",
    "in progress": "cyan",
}


def status_text(status: str) -> Text:
    """A command's status in its colour."""
    return Text(status, style=_COLOURS.get(status, ""))
