"""Cursors that send each statement where it belongs: psycopg's, of the session that it went to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, closing, contextmanager
from typing import Any, Protocol, Self

import psycopg
from psycopg._queries import PostgresQuery
from psycopg.adapt import Transformer
from psycopg.rows import tuple_row

from shardman.client.gathered import gather
from shardman.client.router import Failed, Fanout, Query, Router
from shardman.client.routing.picture import HERE
from shardman.client.routing.placeholders import Params
from shardman.client.sessions import IDLE, Steps, has_own_dumpers
from shardman.client.splitting import Gather, Piece
from shardman.client.streaming import merged, merged_async


class Driver(Protocol):
    """A connection of ours."""

    router: Router
    lock: Any

    def drive(self, steps: Steps) -> Any:
        """Runs what a router wants to be called; to be awaited where it is asynchronous."""


class BaseCursor:
    """What both kinds have in common. All that is not defined here is psycopg's cursor's."""

    def __init__(self, router: Router, row_factory: Any, binary: bool) -> None:
        self._router = router
        self._row_factory = row_factory
        self._binary = binary
        self._real: Any = None
        self._adapters: Any = None
        self._count: int | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._now(), name)

    def _now(self) -> Any:
        return self._real if self._real is not None else self._on(self._router.sessions[HERE])

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
            cursor._adapters = self._adapters  # noqa: SLF001
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
            if error.pgresult is None and params is not None:
                # Where psycopg would not send it to any node, it says what is wrong.
                session = self._router.sessions[HERE]
                PostgresQuery(Transformer(session)).convert(query, params)
            raise

    def _of_tuples(self, session: Any) -> Any:
        cursor = self._fresh(session)
        cursor.row_factory = tuple_row
        return cursor

    def _gather(self, pieces: Sequence[Piece], cursors: Sequence[Any]) -> Steps:
        self._real = yield from gather(pieces, cursors)

    def _execute_many(self, query: Query, rows: Sequence[Any], returning: bool) -> Steps:
        counts: list[int] = []

        def act(session: Any, text: Query, some: Sequence[Any]) -> Steps:
            real = self._on(session)
            yield lambda: real.executemany(text, some, returning=returning)
            counts.append(real.rowcount)
            self._count = sum(counts) if len(counts) > 1 else None

        self._count = None
        if self._sends_keys_otherwise():
            return self._router.run_through(query, lambda s, t: act(s, t, rows))
        return self._router.run_many(query, rows, act, whole=returning)

    @property
    def rowcount(self) -> int:
        """How many rows the statement was about; of `executemany` on all nodes."""
        return self._count if self._count is not None else int(self._now().rowcount)

    def _elsewhere(self, query: Query, params: Params) -> Steps:
        """The session on which a statement runs whose rows flow: it is sent unchanged."""
        found: list[Any] = []

        def act(session: Any, _text: Query) -> Steps:
            found.append(self._on(session))
            yield from ()

        yield from self._router.run_through(query, act)
        return found[0]


class Cursor(BaseCursor):
    """As `psycopg.Cursor`."""

    def __init__(self, db: Driver, row_factory: Any, binary: bool) -> None:
        super().__init__(db.router, row_factory, binary)
        self.connection = db

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
        db = self.connection
        with db.lock:
            failed = None
            straight = None
            if not self._sends_keys_otherwise():
                straight = self._router.straight(query, params)
            if straight is not None:
                node, text = straight
                self._count = None
                session = self._router.sessions[node]
                fresh = session.pgconn.transaction_status == IDLE
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
        self.connection.drive(self._execute_many(query, list(params_seq), returning))

    def stream(
        self, query: Query, params: Params = None, **options: Any
    ) -> Generator[Any, None, None]:
        """Row by row: from all nodes at once where each can be asked for its own."""
        db = self.connection
        streams = None
        if not self._sends_keys_otherwise():
            streams = db.drive(self._router.streams(query, params))
        if streams is None:
            real = db.drive(self._elsewhere(query, params))
            yield from real.stream(query, params, **options)
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
        real = self.connection.drive(self._elsewhere(statement, params))
        with real.copy(statement, params, **options) as copy:
            yield copy

    def __iter__(self) -> Iterator[Any]:
        return iter(self._now())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._real is not None:
            self._real.close()


class AsyncCursor(BaseCursor):
    """As `psycopg.AsyncCursor`."""

    def __init__(self, db: Driver, row_factory: Any, binary: bool) -> None:
        super().__init__(db.router, row_factory, binary)
        self.connection = db

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
        db = self.connection
        failed = None
        async with db.lock:
            straight = None
            if not self._sends_keys_otherwise():
                straight = self._router.straight(query, params)
            if straight is not None:
                node, text = straight
                self._count = None
                session = self._router.sessions[node]
                fresh = session.pgconn.transaction_status == IDLE
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
        await self.connection.drive(self._execute_many(query, list(params_seq), returning))

    async def stream(
        self, query: Query, params: Params = None, **options: Any
    ) -> AsyncGenerator[Any, None]:
        """Row by row: from all nodes at once where each can be asked for its own."""
        db = self.connection
        streams = None
        if not self._sends_keys_otherwise():
            streams = await db.drive(self._router.streams(query, params))
        if streams is None:
            real = await db.drive(self._elsewhere(query, params))
            async for row in real.stream(query, params, **options):
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
        real = await self.connection.drive(self._elsewhere(statement, params))
        async with real.copy(statement, params, **options) as copy:
            yield copy

    def __aiter__(self) -> AsyncIterator[Any]:
        return aiter(self._now())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._real is not None:
            await self._real.close()
