"""What went wrong, in a sentence for the user."""

from __future__ import annotations

import psycopg

from shardman.errors import Temporary, UserError
from shardman.pg.reach import plain, scrub


def sentence(error: BaseException) -> str:
    """One sentence on what was wrong and one on what to do, without passwords."""
    if isinstance(error, UserError):
        return scrub(str(error))
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        reason = plain(error)
        known = reason if reason.startswith("node ") else f"a node cannot be reached: {reason}"
        return scrub(f"{known}. Start it or wait, then try again.")
    if isinstance(error, psycopg.Error) and error.sqlstate is not None:
        where = f" {error.diag.message_detail}" if error.diag.message_detail else ""
        hint = error.diag.message_hint or "See the server's log"
        message = (error.diag.message_primary or str(error)).rstrip(".")
        return scrub(f"{message}.{where} {hint.rstrip('.')}.")
    if isinstance(error, Temporary):
        return scrub(f"{str(error).rstrip('.')}. Try again later.")
    return scrub(f"an internal error: {type(error).__name__}: {error}. Please report it.")
