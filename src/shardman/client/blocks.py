"""`transaction()` of a connection of ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import psycopg


def _how_it_ended(error: BaseException | None, force_rollback: bool) -> str:
    if error is None and not force_rollback:
        return "committed"
    if force_rollback or isinstance(error, psycopg.Rollback):
        return "rolled_back_explicitly"
    return "rolled_back_with_error"


@dataclass(eq=False)
class Block:
    """A `transaction()` that begins on the node of its first statement, as `psycopg.Transaction`;
    ``entered``: by node, the session, psycopg's, and what that gives."""

    name: str | None
    force_rollback: bool
    connection: Any = None
    entered: dict[str, tuple[Any, Any, Any]] = field(default_factory=dict, repr=False)
    _status: str = "active"

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """Also psycopg's, for `isinstance`."""
        kind = self.connection
        return (
            psycopg.AsyncTransaction
            if isinstance(kind, psycopg.AsyncConnection)
            else psycopg.Transaction
        )

    @property
    def savepoint_name(self) -> str | None:
        """What the savepoint is called, where that is known."""
        for _, _, inner in self.entered.values():
            return str(inner.savepoint_name)
        return self.name

    @property
    def pgconn(self) -> Any:
        """As psycopg's: of the session on the node that was connected to."""
        return self.connection.pgconn

    @property
    def status(self) -> Any:
        """As psycopg's, which has it from 3.3 on; with an older one the same words as text."""
        kind = getattr(psycopg.Transaction, "Status", str)
        return kind(self._status)

    def ends(self, error: BaseException | None) -> None:
        """Its body has ended, with an error or none."""
        self._status = _how_it_ended(error, self.force_rollback)

    def fails(self) -> None:
        """What was to be done at its end was not."""
        if self._status == "committed":
            self._status = "failed"
