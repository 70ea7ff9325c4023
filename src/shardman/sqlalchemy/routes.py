"""The client's connection behind SQLAlchemy's, and where statements go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from shardman.client.connection import Connection as Client
from shardman.client.explanation import Sent


def shardman_connection(where: Connection | Session) -> Client:
    """The client's connection that a connection or a session uses now: for `copy_from`, commands.

    Raises:
        TypeError: it is another dialect's, or an asynchronous one.
    """
    connection = where.connection() if isinstance(where, Session) else where
    found = connection.connection.driver_connection
    if not isinstance(found, Client):
        raise TypeError(f"this is {type(found).__name__}: connect with postgresql+shardman://")
    return found


@contextmanager
def record_routes(engine: Engine | AsyncEngine) -> Iterator[list[Sent]]:
    """What is sent meanwhile, and where it goes: for the tests of an application.

    with record_routes(engine) as sent:
        session.get(Account, 7)
    assert all(each.route.straight for each in sent)
    """
    sync = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    sent: list[Sent] = []

    def note(
        connection: Connection, _cursor: Any, statement: str, params: Any, _context: Any, many: bool
    ) -> None:
        db: Any = connection.connection.driver_connection
        for each in params if many else (params,):
            try:
                route = db.explain_route(statement, each)
            except psycopg.Error:
                # It is refused, which it will say itself.
                continue
            sent.append(Sent(statement, route))

    event.listen(sync, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(sync, "before_cursor_execute", note)
