"""Gives channels two phases that a former version, or a lack of room, has left with one.

From PostgreSQL 18 on a subscription may change that while it is disabled. Commits of its node wait for the
moment that takes, so it is done while no command is at work and the channel is not behind. Before 18 the
channel has to be made anew, with one copy fewer meanwhile, which nobody does by himself: `status` says so.

A shardlord that dies in between leaves a subscription that is disabled. The next one takes that for a broken
channel, and gives its replicas up: they come back through a new one, which has two phases.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from contextlib import AsyncExitStack

import structlog

from shardman import names
from shardman.errors import UserError
from shardman.lord.ask import NO_ANSWER, Askers
from shardman.lord.journal import LordLost
from shardman.lord.metadata import Metadata
from shardman.lord.named_locks import NamedLocks
from shardman.lord.policies.channels import Pair
from shardman.lord.sessions import Sessions
from shardman.lord.watchers.once import Once
from shardman.pg import decisions, subscriptions
from shardman.pg.connection import Connection
from shardman.sql.loader import queries
from shardman.steps.catalog import value
from shardman.steps.channels.lifetime import has_room
from shardman.steps.client_parts import knows_decisions
from shardman.steps.confirmation import wait_streaming

log = structlog.get_logger()

LOOK_EVERY_S = 30.0
#: For so long one conversion may take. It takes some tenths of a second.
PATIENCE_S = 5.0
#: Of PostgreSQL, from which on `two_phase` of a subscription can be changed.
CHANGES_FROM = 180000


class TwoPhases:
    """Looks for such channels now and then, and converts one at a time.

    Args:
        named_locks: what commands take while they work on a channel.
    """

    def __init__(
        self, sessions: Sessions, askers: Askers, metadata: Metadata, named_locks: NamedLocks
    ) -> None:
        self._sessions = sessions
        self._askers = askers
        self._metadata = metadata
        self._named_locks = named_locks
        self._look_at = 0.0
        self._complaints = Once()

    async def convert_some(self, pairs: Collection[Pair]) -> list[Pair]:
        """Converts channels that have one phase, where that can be done now; those that were touched.

        Args:
            pairs: channels that are well.
        """
        if time.monotonic() < self._look_at:
            return []
        self._look_at = time.monotonic() + LOOK_EVERY_S
        touched: list[Pair] = []
        for src in sorted({pair[0] for pair in pairs}):
            wanted = {self._name(pair): pair for pair in pairs if pair[0] == src}
            found = await self._in_one_phase(src, list(wanted))
            touched += [wanted[n] for n in found if await self._try(wanted[n], n)]
        return touched

    async def _in_one_phase(self, src: int, channels: list[str]) -> list[str]:
        try:
            rows = await self._askers.ask(src, queries("watch")["in_one_phase"], channels)
        except (*NO_ANSWER, LordLost):
            return []
        return [row[0] for row in rows]

    async def _try(self, pair: Pair, name: str) -> bool:
        try:
            async with asyncio.timeout(PATIENCE_S), AsyncExitStack() as held:
                done = await self._convert(held, pair, name)
        except (*NO_ANSWER, UserError, LordLost) as error:
            if self._complaints.first(pair):
                reason = str(error) or "timeout"
                log.warning("channel stays in one phase", src=pair[0], dest=pair[1], reason=reason)
            return True
        self._complaints.well(pair)
        return done

    async def _convert(self, held: AsyncExitStack, pair: Pair, name: str) -> bool:
        src, dest = pair
        lord = await self._session(held, await self._sessions.lord())
        locks = [f"channel {src} {dest}", f"tables of {name}"]
        await held.enter_async_context(self._named_locks.take(locks))
        if await value(lord, queries("watch")["commands_at_work"]):
            return False
        source = await self._session(held, await self._sessions.open(src, lord))
        there = await self._session(held, await self._sessions.open(dest, lord))
        guard = await self._session(held, await self._sessions.open(dest, lord))
        if there.info.server_version < CHANGES_FROM or not await self._may(source, there):
            return False
        # What was decided has to arrive where what was prepared does.
        await decisions.carry(source, there, guard, name)
        begun = time.monotonic()
        try:
            await subscriptions.disable(there, name)
            await subscriptions.set_two_phase(there, name)
        finally:
            await subscriptions.enable(there, name)
        await wait_streaming(source, name, dest)
        took = round(time.monotonic() - begun, 3)
        log.info("channel has two phases now", src=src, dest=dest, seconds=took)
        return True

    async def _may(self, source: Connection, dest: Connection) -> bool:
        knows = await knows_decisions(source) and await knows_decisions(dest)
        return knows and await has_room(source, dest)

    async def _session(self, held: AsyncExitStack, conn: Connection) -> Connection:
        held.push_async_callback(conn.close)
        return conn

    def _name(self, pair: Pair) -> str:
        return names.channel(self._metadata.known.cluster.id, *pair)
