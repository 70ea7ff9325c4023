"""`shardman lord`: runs the shardlord in the foreground."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Annotated

import typer

from shardman.cli.metrics import exposition
from shardman.cli.options import LORD_DSN, read_dsn
from shardman.cli.web import page
from shardman.log import configure
from shardman.pg.conninfo import SECRETS, parse

app = typer.Typer()


@app.command(rich_help_panel="Cluster")
def lord(
    dsn: Annotated[
        str,
        typer.Argument(
            metavar="LORD_DSN",
            envvar=LORD_DSN,
            help="The lord's database, made by shardman init; - reads it from the standard input.",
            show_default=False,
        ),
    ],
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Also serve metrics there, as `shardman metrics` does.",
            show_default=False,
        ),
    ] = None,
    web: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Also serve the page there, as `shardman web` does.",
            show_default=False,
        ),
    ] = None,
    certificate: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="For TLS of the page.", show_default=False),
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="FILE", help="Its private key.", show_default=False)
    ] = None,
) -> None:
    """Run the shardlord, which carries out the commands; SIGTERM stops it.

    Any number may run, on any machine: one acts, the others stand by. It logs to stderr. SIGUSR1
    cancels what it is executing.
    """
    given = read_dsn(dsn)
    if not SECRETS.isdisjoint(parse(given)) and given in sys.orig_argv:
        _hide(given)
    if metrics is not None:
        exposition().serve(given, metrics)
    if web is not None:
        configure()
        page().serve_beside([given], web, certificate=certificate, key=key)
    # By name: the rest of the command line works without the shardlord's code, and never uses it.
    raise typer.Exit(import_module("shardman.lord.daemon").main(given))


def _hide(dsn: str) -> None:
    """Begins the program anew, in the same process: every account of the machine can read its arguments (`ps`),
    only its own what is in its environment."""
    arguments = [word for word in sys.orig_argv[1:] if word != dsn]
    os.execve(  # noqa: S606 (no shell: the same arguments)
        sys.executable, [sys.executable, *arguments], {**os.environ, LORD_DSN: dsn}
    )
