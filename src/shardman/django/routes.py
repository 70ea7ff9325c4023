"""Where the statements of an application go, for its tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import connections

from shardman.client.explanation import Sent


@contextmanager
def record_routes(using: str = "default") -> Iterator[list[Sent]]:
    """What is sent meanwhile, and where it goes.

    with record_routes() as sent:
        Account.objects.get(pk=key)
    assert all(each.route.straight for each in sent)
    """
    sent: list[Sent] = []

    def note(
        execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]
    ) -> Any:
        db = context["connection"].connection
        for each in params if many else (params,):
            try:
                sent.append(Sent(sql, db.explain_route(sql, each)))
            except psycopg.Error:
                # It is refused, which it will say itself.
                continue
        return execute(sql, params, many, context)

    with connections[using].execute_wrapper(note):
        yield sent
