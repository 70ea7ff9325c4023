"""`shardman top`: the cluster at a glance, live, in a terminal."""

from __future__ import annotations

import asyncio
import logging
import sys
from importlib import import_module
from typing import Annotated, Any

import structlog
import typer

from shardman.cli.options import Dsn
from shardman.errors import Code, UserError

app = typer.Typer()


@app.command(rich_help_panel="Look")
def top(
    dsn: Dsn,
    every: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.5, max=3600, help="How often to look.")
    ] = 2.0,
) -> None:
    """Watch nodes, tables, partitions and commands, live: n, t, p, c, w for what is wrong, q to quit.

    For scripts there is `shardman status --json`.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError(
            "this needs a terminal", "For scripts there is shardman status", code=Code.BAD_ARGUMENT
        )
    # The screen is not for lines of a log: what they would say is on it.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    asyncio.run(_screen().run(dsn, every))


def _screen() -> Any:
    """The module that has the screen, which needs a library that not everybody wants."""
    try:
        return import_module("shardman.cli.live.screen")
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "textual":
            raise
        raise UserError(
            "textual is not installed, and top needs it",
            "pip install 'pg-shardman[top]'",
            code=Code.BAD_ARGUMENT,
        ) from None
