"""`shardman lord`: runs the shardlord in the foreground."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

app = typer.Typer()


@app.command(rich_help_panel="Cluster")
def lord(
    dsn: Annotated[
        str,
        typer.Argument(
            metavar="LORD_DSN",
            envvar="SHARDMAN_LORD_DSN",
            help="The lord's database, made by shardman init.",
            show_default=False,
        ),
    ],
) -> None:
    """Run the shardlord, which carries out the commands; SIGTERM stops it.

    Any number may run, on any machine: one acts, the others stand by. It logs to stderr. SIGUSR1
    cancels what it is executing.
    """
    # By name: the rest of the command line works without the shardlord's code, and never uses it.
    raise typer.Exit(import_module("shardman.lord.daemon").main(dsn))
