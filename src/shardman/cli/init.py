"""shardman init: makes a database the lord's."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from shardman.pg.initialize import initialize


def init(
    lord_dsn: Annotated[str, typer.Argument(help="Connection string of the lord's database.")],
    advertise: Annotated[
        str | None,
        typer.Option(help="How other nodes reach it, where that differs from LORD_DSN."),
    ] = None,
) -> None:
    """Install the schema and make this database the lord's; safe to repeat; upgrades an older schema."""
    cluster = asyncio.run(initialize(lord_dsn, advertise))
    typer.echo(f"This database is the lord's of cluster {cluster}.")
