"""`shardman check`: every invariant of the cluster."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from shardman.cli import output
from shardman.cli.exits import Exit
from shardman.cli.options import Dsn, Json, finite
from shardman.nodes.invariants import check as find

app = typer.Typer()


@app.command(rich_help_panel="Look")
def check(
    dsn: Dsn,
    data: Annotated[
        bool,
        typer.Option(
            "--data",
            help="Also read all rows: copies are equal, each row lies in its partition, every node "
            "counts the same. Each partition's writers wait for some milliseconds.",
        ),
    ] = False,
    patience: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0,
            callback=finite,
            help="How long something must be wrong to be reported.",
        ),
    ] = 5.0,
    json: Json = False,
) -> None:
    """Check all nodes against the metadata, and look for anything left behind.

    The exit code is 0 when nothing is found, else 3.
    """
    found = find(dsn, data, patience)
    if json:
        output.print_json(found)
    elif not found:
        output.stdout().print(Text("Nothing is wrong.", "green"))
    else:
        rows = [(f.subject, f.what, f.hint) for f in found]
        output.stdout().print(output.table(("where", "what is wrong", "what to do"), rows))
    raise typer.Exit(Exit.UNHEALTHY if found else Exit.OK)
