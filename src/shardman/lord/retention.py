"""Watches how much WAL is kept for receivers that do not come for it.

A slot of ours that keeps more than `wal_keep_limit` is logged, and status reports it. One that carries
replicas to a node that is silent is given up, with those replicas: they are brought up to date later,
and until then the disk of the node that lives does not fill up for one that is dead. Mostly a failover
has done so long before; where it was not allowed to, because most nodes are silent, this is what is left.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from shardman.lord import settings
from shardman.lord.ask import NO_ANSWER, Asker
from shardman.lord.cluster_reader import read_cluster
from shardman.lord.journal import LordLost
from shardman.lord.sessions import Sessions
from shardman.tasks import all_of

log = structlog.get_logger()

LOOK_EVERY_S = 3.0

_OVER = """
select s.slot_name, pg_size_pretty(s.retained_bytes),
       case when s.purpose = 'channel' and not s.active and shardman.linked(shardman.my_id(), s.to_node)
            then s.to_node end
  from shardman.status_slots s where s.over_limit and s.purpose <> 'command'
"""


@dataclass(frozen=True)
class Over:
    """A slot that keeps too much.

    Args:
        kept: how much, for people.
        to: the node whose replicas could be given up for it; None when there is none.
    """

    node: int
    slot: str
    kept: str
    to: int | None


class Retention:
    """Watches the slots of one tenure.

    Args:
        silent: the workers that do not answer now.
        suspend: submits a suspension of the replicas of one node's primaries on another, with the
            reason, and waits for its end.
    """

    def __init__(
        self,
        sessions: Sessions,
        silent: Callable[[], set[int]],
        suspend: Callable[[int, int, str], Awaitable[None]],
    ) -> None:
        self._sessions = sessions
        self._silent = silent
        self._suspend = suspend
        #: Since when a slot has kept too much for a node that is silent, by the monotonic clock.
        self._since: dict[tuple[int, int], float] = {}
        self._told: set[tuple[int, str]] = set()

    async def run(self) -> None:
        """Watches until cancelled."""
        lord = await self._sessions.lord()
        try:
            while True:
                await asyncio.sleep(LOOK_EVERY_S)
                cluster = await read_cluster(lord)
                silent = self._silent()
                nodes = sorted({cluster.lord.id, *(n.id for n in cluster.workers)} - silent)
                found = [o for each in await all_of(*map(self._look, nodes)) for o in each]
                self._tell(found)
                after = await settings.seconds(lord, "failover_after", settings.FAILOVER_AFTER_S)
                await self._give_up([o for o in found if o.to in silent], after)
        finally:
            await lord.close()

    async def _look(self, node: int) -> list[Over]:
        asker = Asker(self._sessions, node)
        try:
            return [Over(node, *row) for row in await asker.ask(_OVER)]
        except (*NO_ANSWER, LordLost):
            return []
        finally:
            await asker.close()

    def _tell(self, found: list[Over]) -> None:
        """Once each time that a slot goes over the limit."""
        for over in found:
            if (over.node, over.slot) not in self._told:
                log.warning(
                    "slot over wal_keep_limit", node=over.node, slot=over.slot, kept=over.kept
                )
        self._told = {(o.node, o.slot) for o in found}

    async def _give_up(self, found: list[Over], after: float) -> None:
        now = time.monotonic()
        links = {(o.node, o.to): o.kept for o in found if o.to is not None}
        self._since = {link: self._since.get(link, now) for link in links}
        for (node, to), since in list(self._since.items()):
            if now - since >= after:
                reason = f"node {to} is silent, and {links[node, to]} of WAL were kept for it"
                await self._suspend(node, to, reason)
                del self._since[node, to]
