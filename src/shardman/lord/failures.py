"""What went wrong: a sentence for the user, a code for programs."""

from __future__ import annotations

import re
from dataclasses import dataclass

import psycopg

from shardman.errors import Code, Temporary, UserError
from shardman.pg.sqlstates import of_sqlstate
from shardman.pg.wording import plain, scrub

#: The innermost function that an error arose in. Ours have their schema before them: none has it in its path.
_FUNCTION = re.compile(r"^PL/pgSQL function (?!shardman\.)(.*?)\(.*\) line ", re.MULTILINE)
_FIRST = re.compile(r"^PL/pgSQL function ", re.MULTILINE)
_HINTS = {"53300": "End sessions there, or raise its max_connections, then try again"}


@dataclass(frozen=True)
class Failure:
    """Why something could not be done, as the journal has it.

    Args:
        sentence: what was wrong and what to do, without passwords.
        code: what kind of error it is.
        sqlstate: what a server has reported.
    """

    sentence: str
    code: Code
    sqlstate: str | None = None


def failure(error: BaseException) -> Failure:
    """What is told of an error."""
    sqlstate = error.sqlstate if isinstance(error, psycopg.Error) else None
    return Failure(sentence(error), _code(error), sqlstate)


def _code(error: BaseException) -> Code:
    if isinstance(error, UserError | Temporary):
        return error.code
    if isinstance(error, psycopg.OperationalError):
        return of_sqlstate(error.sqlstate)
    if isinstance(error, psycopg.Error) and error.sqlstate is not None:
        return of_sqlstate(error.sqlstate)
    return Code.INTERNAL_ERROR


def sentence(error: BaseException) -> str:
    """One sentence on what was wrong and one on what to do, without passwords."""
    if isinstance(error, UserError):
        return scrub(str(error))
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        reason = plain(error)
        known = reason if reason.startswith("node ") else f"a node cannot be reached: {reason}"
        return scrub(f"{known}. Start it or wait, then try again.")
    if isinstance(error, psycopg.Error) and error.sqlstate is not None:
        if function := _of_the_user(error):
            return scrub(
                f"the function {function}, which is not the cluster's, raised an error:"
                f" {(error.diag.message_primary or str(error)).rstrip('.')}. If it is that of an event"
                " trigger (see pg_event_trigger), let it pass what the cluster's role does, or disable it."
            )
        where = f" {error.diag.message_detail}" if error.diag.message_detail else ""
        hint = error.diag.message_hint or _HINTS.get(error.sqlstate, "See the server's log")
        message = (error.diag.message_primary or str(error)).rstrip(".")
        return scrub(f"{message}.{where} {hint.rstrip('.')}.")
    if isinstance(error, Temporary):
        return scrub(f"{str(error).rstrip('.')}. Try again later.")
    return scrub(f"an internal error: {type(error).__name__}: {error}. Please report it.")


def _of_the_user(error: psycopg.Error) -> str | None:
    """The function of the user's in which an error arose: what an event trigger of his, say, has raised."""
    context = error.diag.context or ""
    first, theirs = _FIRST.search(context), _FUNCTION.search(context)
    return theirs[1] if first and theirs and first.start() == theirs.start() else None
