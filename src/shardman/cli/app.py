"""The program's commands, put together."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version as installed
from importlib.util import find_spec
from typing import Annotated

import typer

from shardman.cli import check, commands, execute, local, log, lord, plan, status
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
        typer.echo(f"shardman {installed('pg-shardman')}")
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


app.add_typer(status.app)
app.add_typer(check.app)
app.add_typer(execute.app)
app.add_typer(commands.app)
app.add_typer(plan.app)
app.add_typer(log.app)
if find_spec("shardman.cli.init"):
    app.command(rich_help_panel="Cluster")(import_module("shardman.cli.init").init)
app.add_typer(lord.app)
app.add_typer(local.app, name="local", rich_help_panel="Cluster")
if find_spec("shardman.cli.demo"):
    app.add_typer(import_module("shardman.cli.demo").app, rich_help_panel="Cluster")
