"""shardman init: makes a database the lord's."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from shardman.cli.options import LORD_DSN, read_dsn
from shardman.pg.initialize import initialize


def init(
    dsn: Annotated[
        str,
        typer.Argument(
            metavar="LORD_DSN",
            envvar=LORD_DSN,
            help="Connection string of the lord's database; - reads it from the standard input.",
            show_default=False,
        ),
    ],
    advertise: Annotated[
        str | None,
        typer.Option(help="How other nodes reach it, where that differs from LORD_DSN."),
    ] = None,
) -> None:
    """Install the schema and make this database the lord's; safe to repeat; upgrades an older schema."""
    cluster = asyncio.run(initialize(read_dsn(dsn), advertise))
    typer.echo(f"This database is the lord's of cluster {cluster}.")
