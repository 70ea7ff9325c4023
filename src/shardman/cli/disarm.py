"""`shardman disarm`: makes a copy of a node inert."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from shardman.cli.options import read_dsn
from shardman.nodes import disarm as copies

app = typer.Typer()


@app.command(rich_help_panel="Cluster")
def disarm(
    dsn: Annotated[
        str,
        typer.Argument(
            help="Connection string of the copy, not of the node; - reads it from the standard input."
        ),
    ],
    force: Annotated[
        bool,
        typer.Option("--force", help="The node does not answer, and this is known to be a copy."),
    ] = False,
) -> None:
    """Make a copy of a node (its files, or a dump) inert, so that it can be used for tests.

    Subscriptions go without their slots, which are the node's; servers lead nowhere; passwords go. Rows stay.
    """
    what = asyncio.run(copies.disarm(read_dsn(dsn), force=force))
    typer.echo(f"This copy of {what} is inert.")
