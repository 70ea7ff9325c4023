"""`shardman dump` and `shardman restore`: the rows of a whole cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shardman.cli.options import Dsn
from shardman.nodes import dump as dumps
from shardman.nodes import restore as restores
from shardman.nodes.reach import Reach

app = typer.Typer()

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The dump's directory.")]


_PICTURES = {
    dumps.Picture.ALL: "has all nodes as they were at one instant.",
    dumps.Picture.CLIENTS: "has what clients of shardman.connect commit over several nodes wholly or not"
    " at all. Of other transactions over several nodes it may have half: somebody writes to the tables all"
    " the time.",
    dumps.Picture.NONE: "has each node as it was at an instant of its own: somebody writes to the tables all"
    " the time, and commits could not be held.",
}


def _say(line: str) -> None:
    typer.echo(line, err=True)


@app.command(rich_help_panel="Cluster")
def dump(
    directory: Directory,
    dsn: Dsn,
    table: Annotated[
        list[str] | None,
        typer.Option("--table", "-t", metavar="T", help="Only this table; may be given again."),
    ] = None,
) -> None:
    """Write the rows of all sharded and shared tables, each once, into a new directory.

    "psql -f DIR/load.sql" loads them into one plain server, "shardman restore DIR" into a cluster.
    """
    with Reach(dsn) as reach:
        picture = dumps.dump(reach, directory, table or None, _say)
    typer.echo(f"{directory} {_PICTURES[picture]}")


@app.command(rich_help_panel="Cluster")
def restore(directory: Directory, dsn: Dsn) -> None:
    """Make the tables of a dump in a cluster that does not have them, and load their rows."""
    with Reach(dsn) as reach:
        rows = restores.restore(reach, directory, _say)
    typer.echo(f"Loaded {rows} rows.")
