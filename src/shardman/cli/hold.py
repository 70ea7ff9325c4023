"""`shardman hold-commits` and `shardman restore-point`: an instant at which nothing is half committed."""

from __future__ import annotations

import subprocess
from typing import Annotated

import typer

from shardman.cli.options import Dsn
from shardman.nodes import holding

app = typer.Typer()


@app.command("hold-commits", rich_help_panel="Cluster")
def hold_commits(
    command: Annotated[list[str], typer.Argument(metavar="COMMAND…", help="What runs meanwhile.")],
    dsn: Dsn,
    seconds: Annotated[
        float, typer.Option("--seconds", help="It ends then, and the command has failed.")
    ] = holding.SECONDS,
) -> None:
    """Run a command, say a snapshot of all disks, while no client commits on several nodes.

    The exit code is the command's.
    """
    with holding.hold_commits(dsn, seconds=seconds):
        code = subprocess.run(command, check=False).returncode
    raise typer.Exit(code)


@app.command("restore-point", rich_help_panel="Cluster")
def restore_point(
    name: Annotated[str, typer.Argument(metavar="NAME", help="For recovery_target_name.")],
    dsn: Dsn,
) -> None:
    """Make a restore point on all nodes that no client's transaction over several nodes straddles."""
    for node, lsn in holding.create_restore_point(dsn, name).items():
        typer.echo(f"node {node}: {lsn}")
