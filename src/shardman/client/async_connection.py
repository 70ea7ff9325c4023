"""The same as `Connection` for asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from inspect import isawaitable
from types import TracebackType
from typing import Any, Self, TypeVar, cast, overload

import psycopg
from psycopg import errors
from psycopg.rows import AsyncRowFactory, Row, tuple_row

from shardman.client import two_phase
from shardman.client.blocks import Block
from shardman.client.canceled import explained
from shardman.client.cursors import AsyncCursor
from shardman.client.explanation import Route, explain
from shardman.client.likeness import Likeness
from shardman.client.retry import REPEATED, Pauses
from shardman.client.router import Fanout, Query, Router
from shardman.client.routing.picture import HERE
from shardman.client.routing.placeholders import Params
from shardman.client.server_cursors import AsyncServerCursor
from shardman.client.sessions import Steps
from shardman.client.snapshots import IN_SNAPSHOT, need_whole, take

T = TypeVar("T")
CursorRow = TypeVar("CursorRow")


class AsyncConnection(  # type: ignore[misc, override] # as `Connection`
    Likeness, psycopg.AsyncConnection[Row]
):
    """As `psycopg.AsyncConnection`; transactions as those of `Connection`."""

    def __init__(self, router: Router, row_factory: AsyncRowFactory[Row]) -> None:
        self.router = router
        self.row_factory = row_factory
        self.lock = asyncio.Lock()

    @classmethod
    async def connect(  # type: ignore[override] # of one or several nodes
        cls,
        dsn: str = "",
        *more: str,
        autocommit: bool = False,
        row_factory: AsyncRowFactory[Row] | None = None,
        fanout: Fanout = "any",
        atomic: bool = True,
        refresh_seconds: float = 2.0,
        **options: Any,
    ) -> Self:
        """Connects to a cluster; see `shardman.connect`.

        Raises:
            OperationalError: no node answers.
        """
        router = Router(
            (dsn, *more),
            options,
            psycopg.AsyncConnection.connect,
            autocommit,
            refresh_seconds,
            fanout=fanout,
            atomic=atomic,
        )
        db = cls(router, row_factory or cast(AsyncRowFactory[Row], tuple_row))
        await db.drive(router.open())
        return db

    async def drive(self, steps: Steps) -> Any:
        """Runs what a router wants to be called."""
        async with self.lock:
            try:
                return await self._drive(steps)
            except errors.QueryCanceled as error:
                why = await self._drive(explained(self.router, error))
                if why is error:
                    raise
                raise why from error

    async def _drive(self, steps: Steps) -> Any:
        try:
            call = next(steps)
            while True:
                try:
                    result = call()
                    if isawaitable(result):
                        result = await result
                except BaseException as error:  # noqa: BLE001 - it goes to who wanted it
                    call = steps.throw(error)
                else:
                    call = steps.send(result)
        except StopIteration as end:
            return end.value

    async def wait(self, work: Any, *options: Any) -> Any:
        """psycopg's: what a cursor of its own wants done, on the node that was connected to."""
        # The cursor has the lock.
        here = await self._drive(self.router.on_here())
        return await here.wait(work, *options)

    @overload
    def cursor(self, *, binary: bool = False) -> AsyncCursor[Row]: ...

    @overload
    def cursor(
        self, *, binary: bool = False, row_factory: AsyncRowFactory[CursorRow]
    ) -> AsyncCursor[CursorRow]: ...

    @overload
    def cursor(
        self,
        name: str,
        *,
        binary: bool = False,
        scrollable: bool | None = None,
        withhold: bool = False,
    ) -> AsyncServerCursor[Row]: ...

    @overload
    def cursor(
        self,
        name: str,
        *,
        binary: bool = False,
        row_factory: AsyncRowFactory[CursorRow],
        scrollable: bool | None = None,
        withhold: bool = False,
    ) -> AsyncServerCursor[CursorRow]: ...

    def cursor(
        self,
        name: str = "",
        *,
        binary: bool = False,
        row_factory: AsyncRowFactory[Any] | None = None,
        scrollable: bool | None = None,
        withhold: bool = False,
    ) -> AsyncCursor[Any] | AsyncServerCursor[Any]:
        """A cursor; with a name one of the server, where its statement's rows are."""
        factory = row_factory or self.row_factory
        if not name:
            return AsyncCursor(self, factory, binary)
        return AsyncServerCursor(self, factory, binary, name, scrollable, withhold)

    async def execute(
        self,
        query: Query,
        params: Params = None,
        *,
        prepare: bool | None = None,
        binary: bool = False,
        fanout: Fanout | None = None,
    ) -> AsyncCursor[Row]:
        """Sends a statement where its rows are."""
        cursor: AsyncCursor[Row] = AsyncCursor(self, self.row_factory, binary)
        return await cursor.execute(query, params, prepare=prepare, fanout=fanout)

    async def commit(self) -> None:
        """See `Connection.commit`."""
        await self.drive(self.router.end("commit"))

    async def rollback(self) -> None:
        """Rolls back."""
        await self.drive(self.router.end("rollback"))

    @asynccontextmanager
    async def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False, *, here: bool = False
    ) -> AsyncIterator[psycopg.AsyncTransaction]:
        """See `Connection.transaction`."""
        block = Block(savepoint_name, force_rollback, self)
        self.router.blocks.append(block)
        try:
            if here:
                await self.drive(self.router.on_here())
            yield block  # type: ignore[misc] # it is one for isinstance, too
        except BaseException as error:
            trace = error.__traceback__
            if not await self.drive(self.router.end_block(block, type(error), error, trace)):
                raise
        else:
            await self.drive(self.router.end_block(block, None, None, None))

    async def run(self, work: Callable[[Self], Awaitable[T]], *, attempts: int | None = 10) -> T:
        """See `Connection.run`."""
        self.router.need_no_transaction()
        pauses = Pauses(attempts)
        while True:
            try:
                async with self.transaction():
                    return await work(self)
            except REPEATED as error:
                await asyncio.sleep(pauses.next(error))

    @asynccontextmanager
    async def snapshot(self, *, patience_s: float = 5.0) -> AsyncIterator[None]:
        """See `Connection.snapshot`."""
        self.router.need_no_transaction(IN_SNAPSHOT)
        async with AsyncExitStack() as stack:
            await self._enter_snapshot(stack, time.monotonic() + patience_s)
            yield
            await self.drive(need_whole(self.router))

    async def _enter_snapshot(self, stack: AsyncExitStack, until: float) -> None:
        pauses = Pauses(None)
        while True:
            try:
                async with AsyncExitStack() as attempt:
                    await attempt.enter_async_context(self.transaction())
                    await self.drive(take(self.router, until))
                    stack.push_async_exit(attempt.pop_all())
                    return
            except errors.SerializationFailure as error:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(pauses.next(error))

    @asynccontextmanager
    async def pipeline(self) -> AsyncIterator[psycopg.AsyncPipeline]:
        """psycopg's pipeline, on the node of the transaction or the one that was connected to."""
        self.router.need_one_node("a pipeline is on one node")
        node = self.router.bound() or HERE
        session = await self.drive(self.router.session(node))
        async with session.pipeline() as pipeline:
            self.router.pipeline = node
            self.router.goes_through(node)
            try:
                yield pipeline
            finally:
                self.router.pipeline = None

    def cancel(self) -> None:
        """Cancels the statement that is under way."""
        for session in list(self.router.sessions.values()):
            session.cancel()

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:  # noqa: ASYNC109 - psycopg's
        """As psycopg's, on all nodes."""
        for session in list(self.router.sessions.values()):
            await session.cancel_safe(timeout=timeout)

    async def close(self) -> None:
        """Closes the sessions on all nodes; what is not committed is rolled back."""
        await self.drive(self.router.close())

    async def set_autocommit(self, value: bool) -> None:
        """As psycopg's, on all nodes."""
        await self.drive(self.router.set("autocommit", value))

    async def set_isolation_level(self, value: psycopg.IsolationLevel | None) -> None:
        """As psycopg's, on all nodes."""
        await self.drive(self.router.set("isolation_level", value))

    async def set_read_only(self, value: bool | None) -> None:
        """As psycopg's, on all nodes."""
        await self.drive(self.router.set("read_only", value))

    async def set_deferrable(self, value: bool | None) -> None:
        """As psycopg's, on all nodes."""
        await self.drive(self.router.set("deferrable", value))

    async def notifies(
        self,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - psycopg's
        stop_after: int | None = None,
    ) -> AsyncGenerator[psycopg.Notify, None]:
        """See `Connection.notifies`."""
        here = await self.drive(self.router.session(HERE))
        async for each in here.notifies(timeout=timeout, stop_after=stop_after):
            yield each

    async def tpc_begin(self, xid: psycopg.Xid | str) -> None:
        """See `Connection.tpc_begin`."""
        await self.drive(two_phase.begin(self.router, xid))

    async def tpc_prepare(self) -> None:
        """As psycopg's."""
        await self.drive(two_phase.prepare(self.router))

    async def tpc_commit(self, xid: psycopg.Xid | str | None = None) -> None:
        """As psycopg's."""
        await self.drive(two_phase.end(self.router, "tpc_commit", xid))

    async def tpc_rollback(self, xid: psycopg.Xid | str | None = None) -> None:
        """As psycopg's."""
        await self.drive(two_phase.end(self.router, "tpc_rollback", xid))

    async def tpc_recover(self) -> list[psycopg.Xid]:
        """As psycopg's: what is prepared on the node that was connected to."""
        return await self.drive(two_phase.recover(self.router))  # type: ignore[no-any-return]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if not self.closed:
                await self.drive(self.router.end("rollback" if kind else "commit"))
        finally:
            if self._pool is None:
                await self.close()

    def explain_route(self, query: Query, params: Params = None) -> Route:
        """Where a statement would go, and why; nothing is sent."""
        return explain(self.router, query, params)
