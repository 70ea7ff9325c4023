"""The program `shardman`: runs one command and puts errors into words."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import psycopg

from shardman.cli import output
from shardman.cli.app import build
from shardman.cli.exits import Exit
from shardman.errors import Code, UserError
from shardman.pg.wording import in_words, plain


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command. What the user can put right is said in words, with exit code 1; a
    traceback means a mistake of ours."""
    output.remember(json=False)
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        build(words)(args=words, prog_name="shardman")
    except UserError as error:
        _fail(error)
    except psycopg.Error as error:
        _fail(_in_words(error))
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)


def _fail(error: UserError) -> None:
    output.print_error(error)
    sys.exit(Exit.FAILED)


def _in_words(error: psycopg.Error) -> UserError:
    if isinstance(error, psycopg.errors.UndefinedFunction | psycopg.errors.UndefinedTable):
        return UserError(
            plain(error),
            "Name a node of a cluster; an older schema is upgraded by: shardman init LORD_DSN",
            code=Code.NOT_IN_CLUSTER,
        )
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return UserError(
            plain(error),
            "Connect as a member of shardman_viewer, or of shardman_operator for commands",
            code=Code.PERMISSION_DENIED,
        )
    return in_words(error)
