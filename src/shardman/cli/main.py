"""The program `shardman`: runs one command and turns errors into words."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import psycopg

from shardman.cli.app import app
from shardman.cli.exits import Exit
from shardman.errors import UserError
from shardman.pg.reach import in_words, plain, scrub


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command. What the user can put right is said in words, with exit code 1; a
    traceback means a mistake of ours."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="shardman")
    except UserError as error:
        _fail(error)
    except psycopg.Error as error:
        _fail(_in_words(error))
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)


def _fail(error: UserError) -> None:
    print(f"error: {scrub(error.what)}.", file=sys.stderr)
    if error.hint:
        print(scrub(error.hint), file=sys.stderr)
    sys.exit(Exit.FAILED)


def _in_words(error: psycopg.Error) -> UserError:
    if isinstance(error, psycopg.errors.UndefinedFunction | psycopg.errors.UndefinedTable):
        return UserError(
            plain(error),
            "Name a node of a cluster; an older schema is upgraded by: shardman init LORD_DSN",
        )
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return UserError(plain(error), "Connect as the owner of the schema shardman")
    return in_words(error)
