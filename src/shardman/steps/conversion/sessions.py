"""Several sessions at work on one node."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from shardman.pg.connection import Connection
from shardman.steps.base import Run
from shardman.tasks import all_of

#: Sessions that copy, build or compare at the same time.
PARALLEL = 2
Work = Callable[[Connection, Any], Awaitable[None]]


async def for_each(conns: Sequence[Connection], items: Sequence[Any], work: Work) -> None:
    """Does the work for every item, on all connections at the same time; the first failure ends it."""
    queue = list(reversed(items))

    async def one(conn: Connection) -> None:
        while queue:
            await work(conn, queue.pop())

    await all_of(*(one(conn) for conn in conns))


@asynccontextmanager
async def sessions(run: Run, node: int) -> AsyncIterator[list[Connection]]:
    """PARALLEL more sessions on a node."""
    async with AsyncExitStack() as extra:
        yield [await extra.enter_async_context(run.extra_session(node)) for _ in range(PARALLEL)]
