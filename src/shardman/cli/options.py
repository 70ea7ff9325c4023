"""Options and arguments that several commands share."""

from __future__ import annotations

import math
import sys
from typing import Annotated

import typer

from shardman.cli import complete, output

#: The largest integer and bigint of SQL.
INT_MAX, BIGINT_MAX = 2**31 - 1, 2**63 - 1


def finite(seconds: float | None) -> float | None:
    """A number of seconds that ends."""
    if seconds is not None and not math.isfinite(seconds):
        raise typer.BadParameter("give a number of seconds")
    return seconds


#: The environment variable of the lord's connection string.
LORD_DSN = "SHARDMAN_LORD_DSN"


def read_dsn(given: str) -> str:
    """A connection string; "-" means that it is the first line of the standard input, so that a
    password in it is in no list of processes."""
    return sys.stdin.readline().strip() if given == "-" else given


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
Json = Annotated[
    bool, typer.Option("--json", help="Print JSON, for programs.", callback=output.remember)
]
NoWait = Annotated[
    bool, typer.Option("--no-wait", help="Print the command's id and return at once.")
]
Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        min=0,
        callback=finite,
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
        max=INT_MAX,
        autocompletion=complete.workers,
        show_default=False,
    ),
]
CommandId = Annotated[
    int,
    typer.Argument(
        metavar="ID",
        help="A command's id, see shardman log.",
        max=BIGINT_MAX,
        autocompletion=complete.commands,
        show_default=False,
    ),
]
