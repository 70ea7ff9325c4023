"""What of psycopg has no public name and is needed all the same; nothing else of that kind is used.

- One map of adapters for all sessions of a connection: psycopg copies the one that it is given.
- Cursors for questions of ours, which read as psycopg does by itself whatever an application has registered.
- A part that is prepared leaves its `transaction()` without a COMMIT, of which the server would warn.
- A statement is looked at by the server, and not done.
- An error names the table, where the server named a partition.
- Whether `tpc_begin` was called, of which a connection says nothing.

Besides, a connection of ours has what psycopg's own cursors ask of one (`Likeness`). All of it is there from
the lowest psycopg on that is allowed: `make psycopg-lowest` runs the tests with that.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import psycopg
from psycopg import errors, generators
from psycopg._queries import PostgresQuery
from psycopg.adapt import AdaptersMap, Transformer
from psycopg.pq import ExecStatus


def set_adapters(of: Any, adapters: AdaptersMap) -> None:
    """Lets a session, or a cursor, use this map itself."""
    of._adapters = adapters  # noqa: SLF001


def is_two_phase(session: Any) -> bool:
    """Whether a session is between `tpc_begin` and its end."""
    return session._tpc is not None  # noqa: SLF001


def leave_silently(transaction: Any) -> None:
    """Lets psycopg's `transaction()` end without a word to the server."""
    transaction._get_commit_commands = tuple  # noqa: SLF001


def set_result(error: psycopg.Error, result: Any) -> None:
    """What `error.diag` reads."""
    error._info = result  # noqa: SLF001


def prepared(session: Any) -> Any:
    """For psycopg's own cursors: what a session has prepared."""
    return session._prepared  # noqa: SLF001


def pipeline(session: Any) -> Any:
    """The same: the pipeline that it is in."""
    return session._pipeline  # noqa: SLF001


def start_query(session: Any) -> Any:
    """The same: what begins its transaction."""
    return session._start_query()  # noqa: SLF001


def converted(session: Any, query: Any, params: Any) -> PostgresQuery:
    """A statement and its parameters as they would be sent.

    Raises:
        ProgrammingError, TypeError: they do not fit.
    """
    found = PostgresQuery(Transformer(session))
    found.convert(query, params)
    return found


def looked_at(
    session: Any, query: Any, params: Any
) -> Generator[Callable[[], Any], Any, psycopg.Error | None]:
    """What a server has against a statement, which is not done: the error, or None.

    Within a transaction such an error is one of it, as any.

    Raises:
        OperationalError: the connection broke.
    """
    kind = session.cursor_factory
    if issubclass(kind, psycopg.ClientCursor | psycopg.AsyncClientCursor):
        text = kind(session).mogrify(query, params).encode(session.info.encoding)
        session.pgconn.send_prepare(b"", text)
    else:
        sent = converted(session, query, params)
        session.pgconn.send_prepare(b"", sent.query, sent.types)
    (result, *_) = yield lambda: session.wait(generators.execute(session.pgconn))
    if result.status != ExecStatus.FATAL_ERROR:
        return None
    return errors.error_from_result(result, session.info.encoding)
