"""Cursors that send each statement where it belongs: psycopg's, of the session that it went to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, closing, contextmanager
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self

import psycopg
from psycopg.rows import Row, tuple_row

from shardman.client import inner
from shardman.client.gathered import gather, in_sets
from shardman.client.router import Failed, Fanout, Query, Router
from shardman.client.routing.picture import HERE
from shardman.client.routing.placeholders import Params
from shardman.client.sessions import Steps, has_own_dumpers
from shardman.client.splitting import Gather, Piece
from shardman.client.streaming import merged, merged_async

if TYPE_CHECKING:
    _Cursor = psycopg.Cursor
    _AsyncCursor = psycopg.AsyncCursor
else:
    # What is not defined here is looked for in psycopg's cursor of the session, and not in a base.
    _Cursor = _AsyncCursor = Generic


class Driver(Protocol):
    """A connection of ours."""

    router: Router
    lock: Any

    def drive(self, steps: Steps) -> Any:
        """Runs what a router wants to be called; to be awaited where it is asynchronous."""


class BaseCursor:
    """What both kinds have in common. All that is not defined here is psycopg's cursor's."""

    def __init__(self, db: Driver, row_factory: Any, binary: bool) -> None:
        self._db = db
        self._router = db.router
        self._row_factory = row_factory
        self._binary = binary
        self._real: Any = None
        self._adapters: Any = None
        self._count: int | None = None
        self._options: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._now(), name)

    @property
    def connection(self) -> Any:
        """The connection whose cursor it is."""
        return self._db

    def _now(self) -> Any:
        return self._real if self._real is not None else self._on(self._router.sessions[HERE])

    def _left_to_close(self) -> Any:
        """psycopg's cursor that ends with this one; None where the session ended before it was asked."""
        gone = self._real is None and self._router.sessions[HERE].closed
        return None if gone else self._now()

    def _on(self, session: Any) -> Any:
        """A cursor of a session."""
        if self._real is None or self._real.connection is not session:
            self._real = self._fresh(session)
        return self._real

    def _fresh(self, session: Any) -> Any:
        """A further cursor of a session, set as this one."""
        cursor = self._new(session)
        if self._adapters is not None:
            # They are the cursor's, on whichever node.
            inner.set_adapters(cursor, self._adapters)
        for name, value in self._options.items():
            setattr(cursor, name, value)
        return cursor

    def _new(self, session: Any) -> Any:
        return session.cursor(row_factory=self._row_factory, binary=self._binary)

    @property
    def adapters(self) -> Any:
        """Of this cursor only."""
        if self._adapters is None:
            self._adapters = self._now().adapters
        return self._adapters

    def _sends_keys_otherwise(self) -> bool:
        return self._adapters is not None and has_own_dumpers(self._adapters)

    @property
    def row_factory(self) -> Any:
        """What rows are made by."""
        return self._row_factory

    @row_factory.setter
    def row_factory(self, value: Any) -> None:
        self._row_factory = value
        if self._real is not None:
            self._real.row_factory = value

    def _option(self, name: str, value: Any) -> None:
        """Sets an attribute of psycopg's cursor, on whichever node."""
        setattr(self._now(), name, value)
        self._options[name] = value

    @property
    def arraysize(self) -> int:
        """How many rows `fetchmany` gives."""
        return int(self._now().arraysize)

    @arraysize.setter
    def arraysize(self, value: int) -> None:
        self._option("arraysize", value)

    @property
    def format(self) -> Any:
        """In which format rows are sent."""
        return self._now().format

    @format.setter  # noqa: A003 - psycopg's name
    def format(self, value: Any) -> None:
        self._option("format", value)

    def _execute(
        self,
        query: Query,
        params: Params,
        fanout: Fanout | None,
        options: dict[str, Any],
        failed: Failed | None = None,
    ) -> Steps:
        self._count = None

        def act(session: Any, text: Query, values: Params = params) -> Steps:
            if session is None:
                # It was said to a transaction that is on no node yet.
                self._real = None
                return
            real = self._on(session)
            yield lambda: real.execute(text, values, **options)

        if self._sends_keys_otherwise():
            return self._router.run_through(query, act)
        gather_ = Gather(self._fresh, options, self._gather)
        return self._asked(
            query, params, self._router.ask(query, params, fanout, act, gather_, failed)
        )

    def _asked(self, query: Query, params: Params, steps: Steps) -> Steps:
        try:
            return (yield from steps)
        except psycopg.errors.FeatureNotSupported as error:
            if error.pgresult is None:
                # Where it is wrong as it is, that is said first.
                if params is not None:
                    inner.converted(self._router.sessions[HERE], query, params)
                yield from self._router.judged(query, params)
            raise

    def _of_tuples(self, session: Any) -> Any:
        cursor = self._fresh(session)
        cursor.row_factory = tuple_row
        return cursor

    def _gather(self, pieces: Sequence[Piece], cursors: Sequence[Any]) -> Steps:
        self._real = yield from gather(pieces, cursors)
        self._real.arraysize = self._options.get("arraysize", 1)

    def _execute_many(self, query: Query, rows: Sequence[Any], returning: bool) -> Steps:
        sent: dict[int, Any] = {}
        counts: list[int] = []

        def act(session: Any, text: Query, some: Sequence[Any]) -> Steps:
            real = self._fresh(session) if returning else self._on(session)
            yield lambda: real.executemany(text, some, returning=returning)
            self._real = sent[id(some)] = real
            if not returning:
                counts.append(real.rowcount)
                self._count = sum(counts) if len(counts) > 1 else None

        self._count = None
        params = rows[0] if rows else ()
        if self._sends_keys_otherwise():
            through = self._router.run_through(query, lambda s, t: act(s, t, rows))
            return (yield from self._asked(query, params, through))
        groups = yield from self._asked(query, params, self._router.run_many(query, rows, act))
        if returning and groups and len(sent) > 1:
            self._real = in_sets([sent[id(group)] for group in groups])

    @property
    def rowcount(self) -> int:
        """How many rows the statement was about; of `executemany` on all nodes."""
        return self._count if self._count is not None else int(self._now().rowcount)

    def _elsewhere(self, query: Query, params: Params, *, straight: bool = False) -> Steps:
        """The cursor on which a statement runs whose rows flow, and its text.

        Args:
            straight: as a part of the transaction that is open it may go to the owner of its rows. Outside of
                one it is sent unchanged: nobody repeats it where those have moved.
        """
        found: list[Any] = []

        def act(session: Any, text: Query) -> Steps:
            found[:] = [self._on(session), text]
            yield from ()

        if straight and self._router.parts() and not self._sends_keys_otherwise():
            steps = self._router.run(query, params, None, act)
        else:
            steps = self._router.run_through(query, act)
        yield from self._asked(query, params, steps)
        return found


class Cursor(BaseCursor, _Cursor[Row]):
    """As `psycopg.Cursor`."""

    def execute(
        self,
        query: Query,
        params: Params = None,
        *,
        prepare: bool | None = None,
        binary: bool | None = None,
        fanout: Fanout | None = None,
    ) -> Self:
        """Sends a statement where its rows are; ``fanout``: for this one."""
        db = self._db
        with db.lock:
            failed = None
            straight = None
            if not self._sends_keys_otherwise():
                straight = self._router.straight(query, params)
            if straight is not None:
                node, text, fresh = straight
                self._count = None
                session = self._router.sessions[node]
                try:
                    self._on(session).execute(text, params, prepare=prepare, binary=binary)
                    return self
                except psycopg.Error as error:
                    failed = Failed(error, node, session, fresh)
            options = {"prepare": prepare, "binary": binary}
            db.drive(self._execute(query, params, fanout, options, failed))
        return self

    def executemany(
        self, query: Query, params_seq: Iterable[Any], *, returning: bool = False
    ) -> None:
        """Sends a statement many times, each to the owner of its row where that is known."""
        self._db.drive(self._execute_many(query, list(params_seq), returning))

    def stream(
        self, query: Query, params: Params = None, **options: Any
    ) -> Generator[Any, None, None]:
        """Row by row: from all nodes at once where each can be asked for its own."""
        db = self._db
        streams = None
        if not self._sends_keys_otherwise():
            streams = db.drive(self._router.streams(query, params))
        if streams is None:
            real, text = db.drive(self._elsewhere(query, params, straight=True))
            yield from real.stream(text, params, **options)
            return
        cursors = [self._of_tuples(s) for s in streams.sessions]
        # It says what the columns are.
        self._real = cursors[0]
        try:
            with closing(merged(cursors, streams, self._row_factory, options)) as rows:
                yield from rows
        finally:
            cursors[0].row_factory = self._row_factory
            db.drive(self._router.streamed(streams))

    @contextmanager
    def copy(
        self, statement: Query, params: Params = None, **options: Any
    ) -> Iterator[psycopg.Copy]:
        """COPY, through the node that was connected to."""
        real, _ = self._db.drive(self._elsewhere(statement, params))
        with real.copy(statement, params, **options) as copy:
            yield copy

    def __iter__(self) -> Iterator[Row]:  # type: ignore[override] # psycopg's is the cursor from 3.3 on
        return iter(self._now())

    def __next__(self) -> Any:
        # As psycopg's from 3.3 on.
        found = self.fetchone()
        if found is None:
            raise StopIteration
        return found

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """Also psycopg's, for `isinstance`."""
        return psycopg.Cursor

    def close(self) -> None:
        """Ends the cursor, also one whose session has ended: who closes it behind an error keeps that."""
        if (real := self._left_to_close()) is not None:
            real.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._real is not None:
            self._real.close()


class AsyncCursor(BaseCursor, _AsyncCursor[Row]):
    """As `psycopg.AsyncCursor`."""

    async def execute(
        self,
        query: Query,
        params: Params = None,
        *,
        prepare: bool | None = None,
        binary: bool | None = None,
        fanout: Fanout | None = None,
    ) -> Self:
        """Sends a statement where its rows are; ``fanout``: for this one."""
        db = self._db
        failed = None
        async with db.lock:
            straight = None
            if not self._sends_keys_otherwise():
                straight = self._router.straight(query, params)
            if straight is not None:
                node, text, fresh = straight
                self._count = None
                session = self._router.sessions[node]
                try:
                    await self._on(session).execute(text, params, prepare=prepare, binary=binary)
                    return self
                except psycopg.Error as error:
                    failed = Failed(error, node, session, fresh)
        options = {"prepare": prepare, "binary": binary}
        await db.drive(self._execute(query, params, fanout, options, failed))
        return self

    async def executemany(
        self, query: Query, params_seq: Iterable[Any], *, returning: bool = False
    ) -> None:
        """Sends a statement many times, each to the owner of its row where that is known."""
        await self._db.drive(self._execute_many(query, list(params_seq), returning))

    async def stream(
        self, query: Query, params: Params = None, **options: Any
    ) -> AsyncGenerator[Any, None]:
        """Row by row: from all nodes at once where each can be asked for its own."""
        db = self._db
        streams = None
        if not self._sends_keys_otherwise():
            streams = await db.drive(self._router.streams(query, params))
        if streams is None:
            real, text = await db.drive(self._elsewhere(query, params, straight=True))
            async for row in real.stream(text, params, **options):
                yield row
            return
        cursors = [self._of_tuples(s) for s in streams.sessions]
        # It says what the columns are.
        self._real = cursors[0]
        try:
            async with aclosing(merged_async(cursors, streams, self._row_factory, options)) as rows:
                async for row in rows:
                    yield row
        finally:
            cursors[0].row_factory = self._row_factory
            await db.drive(self._router.streamed(streams))

    @asynccontextmanager
    async def copy(
        self, statement: Query, params: Params = None, **options: Any
    ) -> AsyncIterator[psycopg.AsyncCopy]:
        """COPY, through the node that was connected to."""
        real, _ = await self._db.drive(self._elsewhere(statement, params))
        async with real.copy(statement, params, **options) as copy:
            yield copy

    def __aiter__(self) -> AsyncIterator[Row]:  # type: ignore[override] # as above
        return aiter(self._now())

    async def __anext__(self) -> Any:
        # As psycopg's from 3.3 on.
        found = await self.fetchone()
        if found is None:
            raise StopAsyncIteration
        return found

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """Also psycopg's, for `isinstance`."""
        return psycopg.AsyncCursor

    async def close(self) -> None:
        """Ends the cursor, also one whose session has ended: who closes it behind an error keeps that."""
        if (real := self._left_to_close()) is not None:
            await real.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._real is not None:
            await self._real.close()
