"""The program `shardman`: runs one command and turns errors into words."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import psycopg

from shardman.cli.app import app
from shardman.cli.exits import Exit
from shardman.errors import UserError
from shardman.pg.reach import plain, scrub, unreadable


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
    """What the server said: its message, and its hint or else the detail."""
    said = error.diag
    if said.message_primary is None and type(error) is psycopg.ProgrammingError:
        return unreadable()
    if said.message_primary is None and isinstance(error, psycopg.OperationalError):
        return UserError(f"the connection broke: {plain(error)}", "Check the server and try again")
    if isinstance(error, psycopg.errors.UndefinedFunction | psycopg.errors.UndefinedTable):
        return UserError(
            plain(error), "Upgrade the schema of this database: shardman init LORD_DSN"
        )
    return UserError(plain(error), said.message_hint or said.message_detail or "")
