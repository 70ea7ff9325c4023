"""Locks on tables that the application uses.

What waits for a lock makes everybody behind it wait too. So ours are asked for with a short
`lock_timeout`; a try that does not get them gives way, says for whom it waits, and comes again
(guarantee 4).
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TypeVar

import psycopg
from psycopg import sql

from shardman.errors import Code, Temporary, UserError
from shardman.pg.connection import Connection
from shardman.steps.base import Run
from shardman.steps.catalog import value

T = TypeVar("T")

#: How long one try after the other may wait for all its locks, in ms. Short first: most transactions are.
LOCK_TIMEOUTS_MS = (30, 60, 120, 240, 400)
#: Pauses between them, in s.
PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)

#: Between two tries `for_circles`, in s at most, and for how long they go on at that rate.
_BETWEEN_S = 0.1
_HURRIED_S = 60.0

#: How long a step after a switch tries before it leaves the rest for later.
LIMIT_S = 5.0

#: For DDL that is under way a new copy waits so long at most, in ms.
DDL_MS = 3000

#: What CREATE and ALTER PUBLICATION lock a table in.
PUBLISHING = "share update exclusive"


class Busy(Exception):
    """A lock could not be had in time, or a channel did not run empty; whom we wait for."""


#: What a try ends with that comes again: the locks that it asks for by `begin_locked`, or one that a
#: statement under them needs beside.
HELD = (Busy, psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)


class Deadline:
    """When whatever a try waits for must be there, all together.

    Args:
        ms: milliseconds from now.
    """

    def __init__(self, ms: int) -> None:
        self._until = time.monotonic() + ms / 1000

    def left_ms(self) -> int:
        """Milliseconds until then, at least one: zero would be no limit for PostgreSQL."""
        return max(1, round((self._until - time.monotonic()) * 1000))


def _patience() -> Iterator[tuple[int, float]]:
    """Milliseconds for locks, and the pause in seconds after it, of one try after the other."""
    timeouts = itertools.chain(LOCK_TIMEOUTS_MS, itertools.repeat(LOCK_TIMEOUTS_MS[-1]))
    pauses = itertools.chain(PAUSES_S, itertools.repeat(PAUSES_S[-1]))
    return zip(timeouts, pauses, strict=False)


def for_circles() -> Iterator[tuple[int, float]]:
    """As `_patience`, for what is locked on all nodes at once.

    Most tries fail of a circle, in which to wait longer only holds others up: who uses the table comes to
    another node to write there, and stands behind us (sql/routines/95_gate.sql). The next one finds others on
    their way. Some fail of a long statement, for which only a long wait helps, and for hours perhaps.
    """
    hurried_until = time.monotonic() + _HURRIED_S
    shortest, most = LOCK_TIMEOUTS_MS[0], float(LOCK_TIMEOUTS_MS[0])
    while True:
        most = min(LOCK_TIMEOUTS_MS[-1], most * 1.1)
        chance = random.random()  # noqa: S311 - no secret
        wait = most if chance > 0.85 else shortest * (most / shortest) ** (chance**2)
        pause = _BETWEEN_S if time.monotonic() < hurried_until else PAUSES_S[-1]
        yield round(wait), chance * pause


@asynccontextmanager
async def rolled_back(conn: Connection) -> AsyncIterator[None]:
    """Ends whatever transaction is open on a connection when the block fails."""
    try:
        yield
    except BaseException:
        if not conn.closed and not conn.broken:
            await asyncio.shield(conn.rollback())
        raise


@asynccontextmanager
async def ddl_held_off(run: Run) -> AsyncIterator[None]:
    """DDL sent to any node is waited for, and what begins meanwhile waits for the end of the block: it would
    have to be repeated, as it does not see on another node what was made since its first look there
    (sql/routines/95_gate.sql). For a moment only, and nodes are left out that do not answer or have another
    version."""
    members = await value(
        await run.node(0),
        "select array(select n.id from shardman.reachable_nodes() n order by n.id)",
    )
    deadline = Deadline(DDL_MS)
    async with AsyncExitStack() as held:
        for node in (0, *members):
            with suppress(psycopg.OperationalError, UserError, TimeoutError):
                async with asyncio.timeout(deadline.left_ms() / 1000):
                    await _hold_off_ddl(run, held, node, deadline)
        yield


async def _hold_off_ddl(run: Run, held: AsyncExitStack, node: int, deadline: Deadline) -> None:
    conn = await held.enter_async_context(run.extra_session(node))
    held.push_async_callback(_let_go, conn)
    await conn.execute("begin")
    await conn.execute("select shardman.hold_off_ddl(%s)", (deadline.left_ms(),))


async def _let_go(conn: Connection) -> None:
    with suppress(psycopg.OperationalError):
        await conn.rollback()


async def begin_locked(
    conn: Connection, tables: list[str], mode: str, deadline: Deadline, node: int
) -> None:
    """Opens a transaction, unless one is open, that holds locks on tables, taken in this order.

    Args:
        deadline: of all the locks.

    Raises:
        Busy: with whom we waited for; the transaction is rolled back.
    """
    if conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
        await conn.execute("begin")
    try:
        await conn.execute(
            "select shardman.lock_tables(%s, %s, %s)", (tables, mode, deadline.left_ms())
        )
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
        await conn.execute("rollback")
        whom = await value(conn, "select shardman.holders(%s)", tables)
        raise Busy(f"{whom} on node {node}" if whom else f"a lock on node {node}") from None


async def lock_against(
    conn: Connection,
    other: Connection,
    tables: list[str],
    deadline: Deadline,
    node: int,
    clear: sql.SQL | sql.Composed,
) -> None:
    """As `begin_locked`, while those who hold the locks and wait for a dead node are ended.

    They are ended while we stand in the queue: whoever comes again then stands behind us.

    Args:
        other: a second session on the node.
        clear: the statement that ends them.

    Raises:
        Busy: the locks could not be had.
    """

    async def clearing() -> None:
        while True:
            await asyncio.sleep(0.03)
            await other.execute(clear)

    task = asyncio.create_task(clearing())
    try:
        await begin_locked(conn, tables, "access exclusive", deadline, node)
    finally:
        task.cancel()
        await asyncio.wait({task})


async def patiently(
    run: Run,
    attempt: Callable[[Deadline], Awaitable[T]],
    *,
    limit_s: float = math.inf,
    patience: Iterator[tuple[int, float]] | None = None,
) -> T:
    """Tries until nobody holds what is wanted, saying for whom it waits.

    Args:
        attempt: one try; gets until when it may wait for locks.
        limit_s: afterwards it is given up. Steps that come after a switch have a limit: others wait for
            them, and they are tried again later.
        patience: milliseconds for locks, and the pause in seconds after it, of one try after the other.

    Raises:
        Temporary: given up.
    """
    until = time.monotonic() + limit_s
    for timeout_ms, pause in patience or _patience():
        try:
            found = await attempt(Deadline(timeout_ms))
            break
        except HELD as held:
            whom = str(held) if isinstance(held, Busy) else "a lock"
            if time.monotonic() > until:
                raise Temporary(f"waited in vain for {whom}", code=Code.LOCK_TIMEOUT) from None
            await run.waits_for(whom)
            await asyncio.sleep(pause)
    await run.waits_for(None)
    return found


async def execute_patiently(
    run: Run,
    conn: Connection,
    node: int,
    table: str,
    statement: sql.SQL | sql.Composed,
    *,
    limit_s: float = math.inf,
) -> None:
    """Runs one statement that needs a table for itself, in a transaction of its own.

    Args:
        table: as the metadata writes it; locked in ACCESS EXCLUSIVE mode before.
        limit_s: as of `patiently`.
    """

    async def work() -> None:
        await conn.execute(statement)

    await under_locks(run, conn, node, [table], "access exclusive", work, limit_s=limit_s)


async def under_locks(
    run: Run,
    conn: Connection,
    node: int,
    tables: list[str],
    mode: str,
    work: Callable[[], Awaitable[object]],
    *,
    limit_s: float = math.inf,
) -> None:
    """Does something to tables that an application may hold, in a transaction of its own: who holds them is
    said, and nobody stands behind us for long.

    Args:
        tables: as the metadata writes them.
        mode: of their locks, as in LOCK TABLE; one that ``work`` needs.
        limit_s: as of `patiently`.
    """

    async def attempt(deadline: Deadline) -> None:
        async with rolled_back(conn):
            await begin_locked(conn, tables, mode, deadline, node)
            await work()
            await conn.execute("commit")

    await patiently(run, attempt, limit_s=limit_s)
