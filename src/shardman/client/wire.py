"""What a connection says for itself at the end of a transaction: short texts, without a cursor's ways."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from psycopg import errors, generators
from psycopg.pq import Escaping, ExecStatus

from shardman.sql.loader import queries


def filled(session: Any, name: str, *values: str) -> bytes:
    """A text of sql/queries/client.sql with literals."""
    escape = Escaping(session.pgconn).escape_literal
    return queries("client")[name].format(*(escape(v.encode()).decode() for v in values)).encode()


def exchange(session: Any, text: bytes) -> Any:
    """Sends it, in one round trip also where it is several statements; the first value that they give, or
    None. To be awaited where the session is asynchronous.

    Raises:
        psycopg.Error: what the server says.
    """
    return session.wait(_exchanged(session, text))


def _exchanged(session: Any, text: bytes) -> Generator[Any, Any, str | None]:
    session.pgconn.send_query(text)
    results = yield from generators.execute(session.pgconn)
    found: str | None = None
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            raise errors.error_from_result(result, encoding=session.info.encoding)
        if found is None and result.ntuples:
            value = result.get_value(0, 0)
            found = None if value is None else value.decode()
    return found
