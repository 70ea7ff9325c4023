"""`shardman man`: the manual page, from the same definitions as --help."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import typer

from shardman.cli.app import build
from shardman.cli.exits import EPILOG

app = typer.Typer()

_ENVIRONMENT = (
    ("SHARDMAN_DSN", "Any node of the cluster, where no --dsn is given."),
    ("SHARDMAN_LORD_DSN", "The lord's database, for init and lord; nodes of the cluster, for web."),
    ("SHARDMAN_LOG_FORMAT", "json: the shardlord's log is one object a line."),
    ("SHARDMAN_PG_BIN", "The directory of the server programs, for local clusters."),
    ("PGPASSFILE, PGPASSWORD, …", "As libpq has them."),
)


@app.command(rich_help_panel="Look")
def man() -> None:
    """Print the manual page; shardman man > shardman.1 makes a file of it."""
    sys.stdout.write(page(typer.main.get_command(build())))


def page(program: Any) -> str:
    """The manual page of a program and all its commands, as roff.

    Args:
        program: what typer made of it; click's command, which newer ones have in themselves.
    """
    return "\n".join(_lines(program)) + "\n"


def _lines(program: Any) -> Iterator[str]:
    yield '.TH SHARDMAN 1 "" "pg_shardman" "User Commands"'
    yield ".SH NAME"
    yield "shardman \\- " + _text(_first(program).rstrip("."))
    yield ".SH SYNOPSIS"
    yield ".B shardman"
    yield "\\fICOMMAND\\fR [\\fIOPTIONS\\fR] [\\fIARGUMENTS\\fR]"
    yield ".SH DESCRIPTION"
    yield from _paragraphs(program.help or "")
    yield ".SH COMMANDS"
    context = typer.Context(program, info_name="shardman")
    for words, command, own in _commands(program, context):
        yield f'.SS "{_text(words)}"'
        yield _usage(own)
        yield ".PP"
        yield from _paragraphs(command.help or "")
        for parameter in command.params:
            yield from _parameter(parameter)
    yield ".SH EXIT STATUS"
    yield _text(EPILOG.removeprefix("Exit codes: "))
    yield ".SH ENVIRONMENT"
    for name, words in _ENVIRONMENT:
        yield ".TP"
        yield ".B " + _text(name)
        yield _text(words)


def _commands(group: Any, context: typer.Context) -> Iterator[tuple[str, Any, typer.Context]]:
    """All commands with their names, those of groups behind theirs."""
    for name, command in getattr(group, "commands", {}).items():
        if command.hidden:
            continue
        own = typer.Context(command, parent=context, info_name=name)
        if hasattr(command, "commands"):
            yield from _commands(command, own)
        else:
            yield own.command_path.removeprefix("shardman "), command, own


def _usage(context: typer.Context) -> str:
    words = " ".join(context.command.collect_usage_pieces(context))
    return f"\\fB{_text(context.command_path)}\\fR {_text(words)}"


def _parameter(parameter: Any) -> Iterator[str]:
    text = getattr(parameter, "help", None)
    if getattr(parameter, "hidden", False) or not text:
        return
    named = parameter.param_type_name == "option"
    value = parameter.metavar or parameter.name.upper()
    yield ".TP"
    name = ", ".join(parameter.opts + parameter.secondary_opts) if named else value
    takes = named and not parameter.is_flag
    yield f"\\fB{_text(name)}\\fR" + (f" \\fI{_text(value)}\\fR" if takes else "")
    yield _text(text)


def _first(command: Any) -> str:
    return (command.help or "").strip().partition("\n")[0]


def _paragraphs(text: str) -> Iterator[str]:
    for n, paragraph in enumerate(text.strip().split("\n\n")):
        if n:
            yield ".PP"
        yield _text(" ".join(paragraph.split()))


def _text(text: str) -> str:
    """Words as roff takes them for words: no escapes, no request at the begin of a line."""
    escaped = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return "\\&" + escaped if escaped.startswith((".", "'")) else escaped
