"""`shardman metrics`: numbers for Prometheus."""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module
from typing import Annotated, Any

import typer

from shardman.cli.ending import told_to_end
from shardman.cli.options import Dsn
from shardman.errors import Code, UserError
from shardman.log import configure

app = typer.Typer()


@app.command(rich_help_panel="Look")
def metrics(
    dsn: Dsn,
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Serve them at http://HOST:PORT/metrics until SIGTERM.",
            show_default=False,
        ),
    ] = None,
    partitions: Annotated[
        bool, typer.Option("--partitions", help="Also size and rows of each partition.")
    ] = False,
) -> None:
    """Print what the cluster is doing as OpenMetrics text, or serve it for Prometheus.

    Nodes are asked when somebody scrapes, with the rights of the role in the DSN: a member of
    shardman_viewer sees everything.
    """
    configure()
    if listen is None:
        sys.stdout.write(asyncio.run(exposition().once(dsn, partitions=partitions)))
        return
    with told_to_end() as wait:
        exposition().serve(dsn, listen, partitions=partitions)
        wait()


def exposition() -> Any:
    """The module that serves them, which needs a library that not everybody wants."""
    try:
        return import_module("shardman.metrics.exposition")
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "prometheus_client":
            raise
        raise UserError(
            "prometheus-client is not installed, and metrics need it",
            "pip install 'pg-shardman[metrics]'",
            code=Code.BAD_ARGUMENT,
        ) from None
