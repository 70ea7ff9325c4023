"""Watches how much WAL is kept for receivers that do not come for it.

A slot of ours that keeps more than `wal_keep_limit` is logged, and status reports it. One that carries
replicas to a node that is silent is given up, with those replicas: they are brought up to date later,
and until then the disk of the node that lives does not fill up for one that is dead. Mostly a failover
has done so long before; where it was not allowed to, because most nodes are silent, this is what is left.

A shardlord that dies here leaves nothing: what is over the limit is there to be seen by the next one, and a
suspension that was submitted is a command as any other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from shardman.lord.ask import NO_ANSWER, Askers
from shardman.lord.journal import LordLost
from shardman.lord.metadata import Metadata
from shardman.lord.policies.nodes import NodeHealth
from shardman.lord.policies.retention import Over, RetentionLimit
from shardman.lord.watchers.looks import Looks
from shardman.sql.loader import queries

log = structlog.get_logger()

LOOK_EVERY_S = 3.0


class Retention:
    """Watches the slots of one leadership.

    Args:
        nodes: what is known of the workers.
        suspend: submits a suspension of the replicas of one node's primaries on another, with the
            reason, and waits for its end.
    """

    def __init__(
        self,
        askers: Askers,
        metadata: Metadata,
        nodes: NodeHealth,
        suspend: Callable[[int, int, str], Awaitable[None]],
    ) -> None:
        self._askers = askers
        self._metadata = metadata
        self._nodes = nodes
        self._suspend = suspend
        self._limit = RetentionLimit()
        self._found: dict[int, list[Over]] = {}

    async def run(self) -> None:
        """Watches until cancelled."""
        async with asyncio.TaskGroup() as group:
            looks = Looks(group, "look at slots of node", self._look)
            while True:
                cluster, silent = self._metadata.known.cluster, self._nodes.silent()
                asked = {cluster.lord.id, *(n.id for n in cluster.workers)} - silent
                self._found = {n: found for n, found in self._found.items() if n in asked}
                looks.keep(asked)
                await asyncio.sleep(LOOK_EVERY_S)
                await self._judge()

    async def _look(self, node: int) -> float:
        try:
            rows = await self._askers.ask(node, queries("watch")["over_limit"])
            self._found[node] = [Over(node, *row) for row in rows]
        except (*NO_ANSWER, LordLost):
            self._found.pop(node, None)
        return LOOK_EVERY_S

    async def _judge(self) -> None:
        found = [over for each in self._found.values() for over in each]
        for over in self._limit.news(found):
            log.warning("slot over wal_keep_limit", node=over.node, slot=over.slot, kept=over.kept)
        after, silent = self._metadata.known.settings.failover_after, self._nodes.silent()
        for over in self._limit.to_give_up(found, silent, after, time.monotonic()):
            assert over.to is not None
            reason = f"node {over.to} is silent, and {over.kept} of WAL were kept for it"
            await self._suspend(over.node, over.to, reason)
