"""`shardman promote-lord`: another database becomes the lord's."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from shardman.cli.options import Dsn, NodeId
from shardman.nodes.promotion import promote

app = typer.Typer()


@app.command(rich_help_panel="Cluster")
def promote_lord(
    node_id: NodeId,
    dsn: Dsn,
    force: Annotated[
        bool,
        typer.Option("--force", help="The lord's database is lost or cannot be reached."),
    ] = False,
) -> None:
    """Make a worker's copy of the metadata the lord's; run again, it goes on where it was stopped.

    The worker stays a worker. Then start a shardlord for its database: the other nodes follow.
    """
    done = asyncio.run(
        promote(dsn, node_id, force=force, say=lambda line: typer.echo(line, err=True))
    )
    typer.echo(f"Node {done.node} is the lord now. Start its shardlord:")
    typer.echo(f"  shardman lord '{done.dsn}'")
    if done.away:
        typer.echo(f"Not reached, will learn of it: node {', '.join(map(str, done.away))}.")
