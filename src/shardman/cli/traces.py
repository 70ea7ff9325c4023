"""`shardman traces`: commands and their steps for OpenTelemetry."""

from __future__ import annotations

import threading
from importlib import import_module
from typing import Annotated, Any

import typer

from shardman.cli.ending import told_to_end
from shardman.cli.options import Dsn
from shardman.errors import Code, UserError
from shardman.log import configure

app = typer.Typer()


@app.command(rich_help_panel="Look")
def traces(
    dsn: Dsn,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Of the collector, http://HOST:4318/v1/traces; OTEL_EXPORTER_OTLP_… otherwise.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Send each command that ends, with its steps, to an OpenTelemetry collector, until SIGTERM.

    They are read from the cluster's journal with the rights of the role in the DSN, a member of
    shardman_viewer.
    """
    configure()
    module = _tracing()
    with told_to_end() as wait:
        sent = module.Traces(dsn, endpoint)
        # What is wrong from the beginning is said at once.
        sent.look()
        threading.Thread(target=sent.run, name="traces", daemon=True).start()
        wait()
        sent.flush()


def _tracing() -> Any:
    """The module that sends them, which needs libraries that not everybody wants."""
    try:
        return import_module("shardman.metrics.tracing")
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "opentelemetry":
            raise
        raise UserError(
            "opentelemetry is not installed, and traces need it",
            "pip install 'pg-shardman[traces]'",
            code=Code.BAD_ARGUMENT,
        ) from None
