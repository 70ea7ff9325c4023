"""The program's commands, put together."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from importlib.util import find_spec
from typing import Annotated

import typer

from shardman.cli import check, clean, commands, execute, local, log, lord, plan, promote, status
from shardman.cli.exits import EPILOG

app = typer.Typer(
    name="shardman",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            number = installed("pg-shardman")
        except PackageNotFoundError:
            number = "of a source tree that is not installed"
        typer.echo(f"shardman {number}")
        raise typer.Exit


@app.callback()
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


def _mount(name: str) -> None:
    """A command of a part that may not be installed."""
    if find_spec(f"shardman.cli.{name}"):
        command = getattr(import_module(f"shardman.cli.{name}"), name)
        app.command(rich_help_panel="Cluster")(command)


_mount("demo")
_mount("init")
app.add_typer(lord.app)
app.add_typer(promote.app)
app.add_typer(local.app, name="local", rich_help_panel="Cluster")
app.add_typer(status.app)
app.add_typer(check.app)
app.add_typer(execute.app)
app.add_typer(clean.app)
app.add_typer(commands.app)
app.add_typer(plan.app)
app.add_typer(log.app)
