"""What a server or libpq said, in words for a person and without secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import psycopg

from shardman.errors import Code, UserError
from shardman.pg import door
from shardman.pg.conninfo import SECRETS, address, unreadable
from shardman.pg.sqlstates import of_sqlstate

_OTHER_NODE = re.compile(r'could not connect to server "shardman_node_([0-9]+)')
# libpq: connection to server at "h" (1.2.3.4), port 5432 failed: FATAL:  role "x" does not exist
_REASON = re.compile(r"connection to server .*? failed: (?:FATAL:\s+)?(.+)")
_PASSWORD = re.compile(
    r"((?:password|secret|_key)\s*=\s*)('(?:[^'\\\\]|\\\\.)*'|[^\s&]+)", re.IGNORECASE
)
#: A secret of so many characters is no part of a word by chance.
LONG_SECRET = 5
#: To the last @ of the word: a password may have one, or a slash, that was not encoded.
_LOGIN = re.compile(r"(postgres(?:ql)?://[^:/@\s]*:)\S*(@)")


def plain(error: BaseException, params: Mapping[str, Any] | None = None) -> str:
    """What an error says, on one line and without secrets."""
    diag = getattr(error, "diag", None)
    text = (diag.message_primary if diag else None) or str(error)
    reasons = _REASON.findall(text)
    line = reasons[-1] if reasons else next((li for li in text.splitlines() if li.strip()), "")
    for prefix in ("connection failed: ", "connection is bad: ", "FATAL: "):
        line = line.strip().removeprefix(prefix)
    line = line.strip() or "no reason given"
    for name in SECRETS:
        secret = (params or {}).get(name)
        if secret:
            line = _without(line, str(secret))
    return scrub(line).rstrip(".")


def _without(line: str, secret: str) -> str:
    """A line without a secret. A short one is taken out where it stands alone: as a part of words it tells
    nothing, but in "cannot ***e reached" what it is."""
    if len(secret) >= LONG_SECRET:
        return line.replace(secret, "***")
    return re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", line)


def in_words(error: psycopg.Error) -> UserError:
    """What a server or libpq said, and what to do about it."""
    said = error.diag
    if said.message_primary is None and type(error) is psycopg.ProgrammingError:
        return unreadable()
    if said.message_primary is None and isinstance(error, psycopg.OperationalError):
        return UserError(
            f"the connection broke: {plain(error)}",
            "Check the server and try again",
            code=Code.NODE_UNREACHABLE,
        )
    other = _OTHER_NODE.search(said.message_primary or "")
    if other and isinstance(error, psycopg.errors.SqlclientUnableToEstablishSqlconnection):
        reason = plain(psycopg.OperationalError(said.message_detail or "no reason given"))
        return UserError(
            f"it cannot reach node {other[1]}: {reason}",
            "See shardman status for that node",
            code=Code.NODE_UNREACHABLE,
        )
    return UserError(
        plain(error),
        said.message_hint or said.message_detail or "",
        code=of_sqlstate(error.sqlstate),
    )


def unreachable(params: Mapping[str, Any], error: psycopg.Error) -> UserError:
    """The sentence for a server that cannot be reached."""
    reason = plain(error, params)
    if not isinstance(error, psycopg.errors.ConnectionTimeout) and door.is_full(params):
        return UserError(
            f"{address(params)} answers, but has no connection left: {reason}",
            "End sessions there, or raise its max_connections; those that are open go on",
            code=Code.SERVER_FULL,
        )
    return UserError(
        f"cannot reach {address(params)}: {reason}", _advice(reason), code=Code.NODE_UNREACHABLE
    )


def scrub(text: str) -> str:
    """A text without the passwords of the connection strings in it."""
    text = _PASSWORD.sub(r"\1***", text)
    return _LOGIN.sub(r"\1***\2", text)


def _advice(reason: str) -> str:
    low = reason.lower()
    if "password" in low or "authentication" in low:
        return "Check the user and the password, or set PGPASSWORD or ~/.pgpass"
    if "database" in low and "does not exist" in low:
        return "Check dbname"
    if "role" in low and "does not exist" in low:
        return "Check user"
    if "pg_hba" in low:
        return "Allow this client in the server's pg_hba.conf"
    if "translate host name" in low or "name or service" in low:
        return "Check the name of the host"
    return "Check that the server runs and that host and port are right"
