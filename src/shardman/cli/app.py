"""The program's commands, put together: all of them, or the one that is run.

To import what every command needs takes longer than most commands do.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from importlib.util import find_spec
from typing import Annotated

import typer

from shardman.cli.exits import EPILOG

#: Modules of this package, in the order in which their commands are listed, each with these. `commands` makes
#: one of each verb; `plan` shows the others, so it needs them.
PARTS: dict[str, tuple[str, ...]] = {
    "demo": ("demo",),
    "init": ("init",),
    "lord": ("lord",),
    "promote": ("promote-lord",),
    "local": ("local",),
    "status": ("status",),
    "check": ("check",),
    "top": ("top",),
    "metrics": ("metrics",),
    "traces": ("traces",),
    "doctor": ("doctor",),
    "report": ("report",),
    "web": ("web",),
    "man": ("man",),
    "execute": ("exec",),
    "clean": ("clean",),
    "disarm": ("disarm",),
    "copy": ("copy",),
    "dump": ("dump", "restore"),
    "hold": ("hold-commits",),
    "distribute": ("distribute",),
    "commands": (),
    "plan": (),
    "log": ("log", "wait", "cancel"),
}


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            number = installed("pg-shardman")
        except PackageNotFoundError:
            number = "of a source tree that is not installed"
        typer.echo(f"shardman {number}")
        raise typer.Exit


def _root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """One sharded database out of stock PostgreSQL servers.

    Name a cluster by any of its nodes: --dsn, or SHARDMAN_DSN in the environment.
    """


def build(words: Iterable[str] = ()) -> typer.Typer:
    """The program.

    Args:
        words: the arguments that it is called with. Where they begin with a command, it alone is there.
    """
    app = typer.Typer(
        name="shardman",
        epilog=EPILOG,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for part in _needed(next(iter(words), "")):
        # Some may not be installed.
        if find_spec(f"shardman.cli.{part}"):
            _mount(app, part)
    return app


def _needed(command: str) -> Iterable[str]:
    """The parts that a command needs; all where there is no such command."""
    verb = command.replace("-", "_")
    if verb.isidentifier() and find_spec(f"shardman.commands.{verb}"):
        return ("commands",)
    return [part for part, names in PARTS.items() if command in names] or PARTS


def _mount(app: typer.Typer, part: str) -> None:
    module = import_module(f"shardman.cli.{part}")
    if part == "local":
        app.add_typer(module.app, name=part, rich_help_panel="Cluster")
    elif part in ("demo", "init"):
        app.command(rich_help_panel="Cluster")(getattr(module, part))
    else:
        app.add_typer(module.app)
