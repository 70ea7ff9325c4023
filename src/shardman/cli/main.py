"""The program `shardman`: puts the commands together and turns errors into words."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from shardman.cli import local
from shardman.errors import UserError

app = typer.Typer(
    name="shardman",
    help="One sharded database out of stock PostgreSQL servers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(local.app, name="local")


@app.callback()
def _root() -> None:
    """One sharded database out of stock PostgreSQL servers."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; what the user can mend is said in words, with exit code 1."""
    try:
        app(args=list(arguments) if arguments is not None else None)
    except UserError as error:
        print(f"error: {error.what}", file=sys.stderr)
        if error.hint:
            print(error.hint, file=sys.stderr)
        sys.exit(1)
