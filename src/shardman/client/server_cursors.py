"""Cursors of the server, on the node where the statement belongs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self

import psycopg
from psycopg.rows import Row

from shardman.client.cursors import AsyncCursor, BaseCursor, Cursor, Driver
from shardman.client.router import Fanout, Query
from shardman.client.routing.placeholders import Params
from shardman.client.sessions import Steps

if TYPE_CHECKING:
    _Server = psycopg.ServerCursor
    _AsyncServer = psycopg.AsyncServerCursor
else:
    _Server = _AsyncServer = Generic


class _Named(BaseCursor):
    def _says(self, name: str, scrollable: bool | None, withhold: bool) -> None:
        self._declared = {"name": name, "scrollable": scrollable, "withhold": withhold}

    def _new(self, session: Any) -> Any:
        return session.cursor(row_factory=self._row_factory, binary=self._binary, **self._declared)

    @property
    def itersize(self) -> int:
        """How many rows are fetched at once where it is iterated."""
        return int(self._now().itersize)

    @itersize.setter
    def itersize(self, value: int) -> None:
        self._option("itersize", value)

    def _declare(
        self, query: Query, params: Params, binary: bool | None, fanout: Fanout | None
    ) -> Steps:
        def act(session: Any, text: Query) -> Steps:
            former = self._real
            if former is not None and former.connection is not session:
                yield former.close
            real = self._on(session)
            yield lambda: real.execute(text, params, binary=binary)

        router = self._router
        steps = router.run(query, params, fanout, act, declares=str(self._declared["name"]))
        yield from self._asked(query, params, steps)


class ServerCursor(_Named, Cursor[Row], _Server[Row]):  # type: ignore[misc] # __iter__, see there
    """As `psycopg.ServerCursor`."""

    def __init__(
        self,
        db: Driver,
        row_factory: Any,
        binary: bool,
        name: str,
        scrollable: bool | None,
        withhold: bool,
    ) -> None:
        super().__init__(db, row_factory, binary)
        self._says(name, scrollable, withhold)

    def execute(  # type: ignore[override]
        self,
        query: Query,
        params: Params = None,
        *,
        binary: bool | None = None,
        fanout: Fanout | None = None,
    ) -> Self:
        """Declares it where the statement's rows are."""
        self._db.drive(self._declare(query, params, binary, fanout))
        return self

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """Also psycopg's, for `isinstance`."""
        return psycopg.ServerCursor

    def executemany(self, *_args: Any, **_options: Any) -> NoReturn:
        """As psycopg's, which has none either."""
        raise psycopg.NotSupportedError("executemany not supported on server-side cursors")


class AsyncServerCursor(_Named, AsyncCursor[Row], _AsyncServer[Row]):  # type: ignore[misc]
    """As `psycopg.AsyncServerCursor`."""

    def __init__(
        self,
        db: Driver,
        row_factory: Any,
        binary: bool,
        name: str,
        scrollable: bool | None,
        withhold: bool,
    ) -> None:
        super().__init__(db, row_factory, binary)
        self._says(name, scrollable, withhold)

    async def execute(  # type: ignore[override]
        self,
        query: Query,
        params: Params = None,
        *,
        binary: bool | None = None,
        fanout: Fanout | None = None,
    ) -> Self:
        """Declares it where the statement's rows are."""
        await self._db.drive(self._declare(query, params, binary, fanout))
        return self

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """Also psycopg's, for `isinstance`."""
        return psycopg.AsyncServerCursor

    async def executemany(self, *_args: Any, **_options: Any) -> NoReturn:
        """As psycopg's, which has none either."""
        raise psycopg.NotSupportedError("executemany not supported on server-side cursors")
