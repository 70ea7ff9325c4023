"""`shardman hold-commits`: an instant at which nothing is half committed."""

from __future__ import annotations

import subprocess
from typing import Annotated

import typer

from shardman.cli.options import Dsn
from shardman.nodes.holding import hold_commits

app = typer.Typer()


@app.command("hold-commits", rich_help_panel="Cluster")
def hold(
    command: Annotated[list[str], typer.Argument(metavar="COMMAND…", help="What runs meanwhile.")],
    dsn: Dsn,
) -> None:
    """Run a command, say a snapshot of all disks, while no client commits on several nodes.

    The exit code is the command's.
    """
    with hold_commits(dsn):
        code = subprocess.run(command, check=False).returncode
    raise typer.Exit(code)
