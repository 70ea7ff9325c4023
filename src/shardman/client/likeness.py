"""What both kinds of connection have as psycopg's have it, and that needs no waiting.

What is read is that of the node that was connected to; what is set is set on all nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import psycopg
from psycopg.pq import ConnStatus, TransactionStatus

from shardman.client import inner
from shardman.client.router import Router
from shardman.client.routing.picture import HERE

_WORST_FIRST = (TransactionStatus.INERROR, TransactionStatus.ACTIVE, TransactionStatus.INTRANS)


class Info(psycopg.ConnectionInfo):
    """Of the session on the node that was connected to; the transaction's state is that of all of them."""

    def __init__(self, router: Router) -> None:
        super().__init__(router.sessions[HERE].pgconn)
        self._router = router

    @property
    def transaction_status(self) -> TransactionStatus:
        """The worst of all nodes of the transaction."""
        router = self._router
        found = {router.sessions[n].pgconn.transaction_status for n in router.parts()}
        for status in _WORST_FIRST:
            if status in found:
                return status
        if router.lost:
            return TransactionStatus.INERROR
        if router.blocks or router.held:
            # It is open, and on no node yet.
            return TransactionStatus.INTRANS
        return super().transaction_status


class Likeness:
    """As `psycopg.BaseConnection`."""

    Warning = psycopg.Warning
    Error = psycopg.Error
    InterfaceError = psycopg.InterfaceError
    DatabaseError = psycopg.DatabaseError
    DataError = psycopg.DataError
    OperationalError = psycopg.OperationalError
    IntegrityError = psycopg.IntegrityError
    InternalError = psycopg.InternalError
    ProgrammingError = psycopg.ProgrammingError
    NotSupportedError = psycopg.NotSupportedError

    router: Router
    #: psycopg_pool's, of a connection that it has made.
    _pool: Any = None

    @property
    def _here(self) -> Any:
        return self.router.sessions[HERE]

    @property
    def connection(self) -> Self:
        """Itself: it has adapters, which is what psycopg looks for."""
        return self

    @property
    def closed(self) -> bool:
        """Whether it was closed. A session that broke is opened again."""
        return self.router.closed

    @property
    def broken(self) -> bool:
        """Whether the session on the node that was connected to broke, and none was opened in its place yet."""
        return not self.router.closed and self._here.pgconn.status == ConnStatus.BAD

    @property
    def info(self) -> Info:
        """Of the session on the node that was connected to."""
        return Info(self.router)

    @property
    def pgconn(self) -> Any:
        """Of the session on the node that was connected to."""
        return self._here.pgconn

    # -- for psycopg's own cursors, which are of the node that was connected to -------------------

    @property
    def _prepared(self) -> Any:
        return inner.prepared(self._here)

    @property
    def _pipeline(self) -> Any:
        return inner.pipeline(self._here)

    def _start_query(self) -> Any:
        return inner.start_query(self._here)

    def __del__(self) -> None:
        """Whoever closes nothing is warned of each session."""

    def fileno(self) -> int:
        """Of the session on the node that was connected to."""
        return self._here.fileno()  # type: ignore[no-any-return]

    @property
    def adapters(self) -> Any:
        """Of the node that was connected to; sessions on other nodes begin with a copy."""
        return self._here.adapters

    def xid(self, format_id: int, gtrid: str, bqual: str) -> psycopg.Xid:
        """For `tpc_begin`."""
        return self._here.xid(format_id, gtrid, bqual)  # type: ignore[no-any-return]

    def add_notice_handler(self, callback: Callable[[Any], None]) -> None:
        """Calls it with each notice of each node."""
        self.router.notice_handlers.append(callback)
        for session in self.router.sessions.values():
            session.add_notice_handler(callback)

    def remove_notice_handler(self, callback: Callable[[Any], None]) -> None:
        """Calls it no more."""
        self.router.notice_handlers.remove(callback)
        for session in self.router.sessions.values():
            session.remove_notice_handler(callback)

    def add_notify_handler(self, callback: Callable[[psycopg.Notify], None]) -> None:
        """Calls it with each notification. LISTEN is on the node that was connected to, and so are these."""
        self.router.notify_handlers.append(callback)
        self._here.add_notify_handler(callback)

    def remove_notify_handler(self, callback: Callable[[psycopg.Notify], None]) -> None:
        """Calls it no more."""
        self.router.notify_handlers.remove(callback)
        self._here.remove_notify_handler(callback)

    @property
    def autocommit(self) -> bool:
        """Whether each statement is a transaction."""
        return self.router.autocommit

    @property
    def isolation_level(self) -> psycopg.IsolationLevel | None:
        """Of transactions that begin."""
        return self.router.settings.get("isolation_level")

    @property
    def read_only(self) -> bool | None:
        """Of transactions that begin."""
        return self.router.settings.get("read_only")

    @property
    def deferrable(self) -> bool | None:
        """Of transactions that begin."""
        return self.router.settings.get("deferrable")

    @property
    def prepare_threshold(self) -> int | None:
        """After how many times a statement is prepared on a node."""
        return self._here.prepare_threshold  # type: ignore[no-any-return]

    @prepare_threshold.setter
    def prepare_threshold(self, value: int | None) -> None:
        self.router.attribute("prepare_threshold", value)

    @property
    def prepared_max(self) -> int | None:
        """How many statements are prepared on a node at most."""
        return self._here.prepared_max  # type: ignore[no-any-return]

    @prepared_max.setter
    def prepared_max(self, value: int | None) -> None:
        self.router.attribute("prepared_max", value)

    @property
    def cursor_factory(self) -> Any:
        """psycopg's kind of cursor that is used on each node."""
        return self._here.cursor_factory

    @cursor_factory.setter
    def cursor_factory(self, value: Any) -> None:
        self.router.attribute("cursor_factory", value)

    @property
    def server_cursor_factory(self) -> Any:
        """The same for cursors of the server."""
        return self._here.server_cursor_factory

    @server_cursor_factory.setter
    def server_cursor_factory(self, value: Any) -> None:
        self.router.attribute("server_cursor_factory", value)
