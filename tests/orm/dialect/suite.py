"""SQLAlchemy's tests for dialects, which tests/orm/test_dialect.py runs in a process of their own."""

from __future__ import annotations

from typing import Any

from sqlalchemy.testing import suite
from sqlalchemy.testing.suite import *  # noqa: F403


class ServerSideCursorsTest(suite.ServerSideCursorsTest):
    """The suite knows only SQLAlchemy's own drivers."""

    def _is_server_side(self, cursor: Any) -> bool:
        return bool(getattr(cursor, "name", False))
