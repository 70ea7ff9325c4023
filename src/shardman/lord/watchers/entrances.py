"""Holds the entrances of a table on all nodes but one while they commit what writes its rows anew there
(sql/routines/95_entrances.sql): nobody comes in before the last node, where it was sent, has committed."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import structlog

from shardman.lord.ask import NO_ANSWER, interruptible
from shardman.lord.journal import LordLost
from shardman.lord.watchers.reach import Reach
from shardman.pg.connection import Connection
from shardman.pg.wording import plain
from shardman.sql.loader import queries
from shardman.tasks import all_of, cancel_once

log = structlog.get_logger()

#: Who wants them held waits for this at most, before anything is locked.
LOOK_EVERY_S = 0.5
#: A holder whose node has committed as well returns within this.
_ENDS_S = 1.0


@dataclass(frozen=True)
class Wish:
    """Of a session that is about to change a table.

    Args:
        node: where the session is.
        session: its name, as %c of log_line_prefix.
        relation: the table.
        xact: its transaction, as pg_locks there names it.
    """

    node: int
    session: str
    relation: str
    xact: str


class Entrances:
    """Those of one leadership."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._tasks: dict[Wish, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Looks until cancelled; then all entrances are open."""
        try:
            while True:
                await all_of(*(self._look(n) for n in self._reach.nodes()))
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            for task in self._tasks.values():
                cancel_once(task)

    async def _look(self, node: int) -> None:
        try:
            rows = await self._reach.askers.ask(node, queries("entrances")["look"])
        except (*NO_ANSWER, LordLost):
            return
        for session, relation, xact in rows:
            wish = Wish(node, session, relation, xact)
            if wish not in self._tasks:
                self._begin(wish)

    def _begin(self, wish: Wish) -> None:
        name = f"entrances of {wish.relation} for {wish.session}"
        task = asyncio.create_task(self._hold(wish), name=name)
        self._tasks[wish] = task

        def ended(_task: asyncio.Task[None]) -> None:
            self._tasks.pop(wish, None)

        task.add_done_callback(ended)

    async def _hold(self, wish: Wish) -> None:
        """From the wish to the end of its transaction. Where a holder is lost the change goes on without."""
        try:
            async with AsyncExitStack() as stack:
                others = [n for n in self._reach.nodes() if n != wish.node]
                sessions = await all_of(*(self._holder(stack, n, wish) for n in others))
                first = await self._open(stack, wish.node)
                # The first node's is the answer, when all others are there.
                sessions.append(await self._holder(stack, wish.node, wish))
                holders = {
                    node: asyncio.create_task(
                        _hold(session, wish), name=f"the entrance of {wish.relation} on {node}"
                    )
                    for node, session in zip((*others, wish.node), sessions, strict=True)
                }
                stack.push_async_callback(_end, holders.values())
                await self._ended(wish, first, holders)
                await _end(holders.values(), _ENDS_S)
                for node, holder in holders.items():
                    _note(wish, node, holder)
        except (*NO_ANSWER, LordLost) as error:
            log.warning("entrances are not held", relation=wish.relation, reason=plain(error))

    async def _ended(
        self, wish: Wish, first: Connection, holders: Mapping[int, asyncio.Task[bool]]
    ) -> None:
        """Waits for the end of the change where it was sent. The holder there has the table in the same
        instant; where it has gone before, the transaction is looked at.

        Raises:
            psycopg.Error: the node does not answer.
        """
        end = asyncio.create_task(_say(first, "await", wish.xact))
        try:
            holder = holders[wish.node]
            await asyncio.wait({end, holder}, return_when=asyncio.FIRST_COMPLETED)
            if not (holder.done() and holder.exception() is None and holder.result()):
                await end
        finally:
            await _end([end])

    async def _holder(self, stack: AsyncExitStack, node: int, wish: Wish) -> Connection:
        """A session that is known as a holder.

        Raises:
            As `_open`; psycopg.errors.UndefinedFunction: the node is of an older version.
        """
        session = await self._open(stack, node)
        await _say(session, "be_holder", wish.relation, wish.session)
        return session

    async def _open(self, stack: AsyncExitStack, node: int) -> Connection:
        """A session; it is closed with the stack, which lets go what it holds.

        Raises:
            psycopg.Error, UserError, LordLost: the node does not answer.
        """
        lord = await self._reach.sessions.lord()
        try:
            session = await self._reach.sessions.open(node, lord)
        finally:
            await self._reach.sessions.give_back(lord)
        stack.push_async_callback(session.close)
        return session


async def _hold(session: Connection, wish: Wish) -> bool:
    """Whether a holder had the table when the change had ended on its node."""
    await session.execute("begin")
    ((held,),) = await _say(session, "hold", wish.relation, wish.session)
    return bool(held)


async def _say(session: Connection, name: str, *params: Any) -> list[tuple[Any, ...]]:
    """The rows of a query of ours. Whoever is cancelled hangs up, and the server ends what it does here."""

    async def rows() -> list[tuple[Any, ...]]:
        return await (await session.execute(queries("entrances")[name], params)).fetchall()

    return await interruptible(session, rows())


async def _end(tasks: Collection[asyncio.Task[Any]], seconds: float = 0.0) -> None:
    """Cancels what has not ended within so long."""
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            cancel_once(task)
        await asyncio.wait(tasks)


def _note(wish: Wish, node: int, holder: asyncio.Task[Any]) -> None:
    """Says whether a holder had the table."""
    if holder.cancelled():
        log.warning("an entrance was not had in time", relation=wish.relation, node=node)
    elif (error := holder.exception()) is not None:
        log.warning(
            "an entrance was not held", relation=wish.relation, node=node, reason=plain(error)
        )
    else:
        log.debug("entrance", relation=wish.relation, node=node, held=holder.result())
