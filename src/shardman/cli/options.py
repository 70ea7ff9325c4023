"""Options and arguments that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from shardman.cli import complete

Dsn = Annotated[
    str,
    typer.Option(
        "--dsn",
        envvar="SHARDMAN_DSN",
        metavar="DSN",
        help="Any node of the cluster, as a libpq connection string.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
NoWait = Annotated[
    bool, typer.Option("--no-wait", help="Print the command's id and return at once.")
]
Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        min=0,
        help="Wait no longer than this; the command goes on, the exit code is 4.",
        show_default=False,
    ),
]
DryRun = Annotated[
    bool, typer.Option("--plan", help="Print what the command would do, and do nothing.")
]

Relation = Annotated[
    str,
    typer.Argument(
        metavar="RELATION",
        help="A sharded table, written as in SQL.",
        autocompletion=complete.relations,
        show_default=False,
    ),
]
PartName = Annotated[
    str,
    typer.Argument(
        metavar="PART_NAME",
        help="A partition, e.g. accounts_3.",
        autocompletion=complete.partitions,
        show_default=False,
    ),
]
NodeId = Annotated[
    int,
    typer.Argument(
        metavar="NODE_ID",
        help="A worker's node id.",
        autocompletion=complete.workers,
        show_default=False,
    ),
]
CommandId = Annotated[
    int,
    typer.Argument(
        metavar="ID",
        help="A command's id, see shardman log.",
        autocompletion=complete.commands,
        show_default=False,
    ),
]
