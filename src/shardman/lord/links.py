"""Gives up replicas that their primary cannot reach although both nodes live.

Commits on the primary's node wait for them, for ever if nobody does something. Slow is not broken: a
replica that is busy with what it has received is waited for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from shardman import names
from shardman.lord import settings
from shardman.lord.ask import NO_ANSWER, Asker
from shardman.lord.cluster_reader import read_cluster
from shardman.lord.journal import LordLost
from shardman.lord.sessions import Sessions
from shardman.model.cluster import Cluster

log = structlog.get_logger()

LOOK_EVERY_S = 1.0

#: Where a channel's subscriber has confirmed to be, and where the WAL ends. What was written just now
#: is sent at once, so that a link without writers is tried as well.
_CONFIRMED = """
select s.confirmed_flush_lsn - '0/0'::pg_lsn, pg_current_wal_insert_lsn() - '0/0'::pg_lsn, shardman.emit()
  from pg_replication_slots s where s.slot_name = %s
"""
#: Whether the subscriber hears its publisher, and how far it has come.
_RECEIVED = """
select coalesce(bool_or(last_msg_receipt_time > clock_timestamp() - make_interval(secs => %s)), false),
       coalesce(max(latest_end_lsn) - '0/0'::pg_lsn, 0)
  from pg_stat_subscription where subname = %s and relid is null
"""


@dataclass
class Behind:
    """A position that has not been confirmed: since which look, and at which one it still was not. By
    the monotonic clock."""

    position: int
    since: float
    still: float


class Links:
    """Watches the channels of one tenure.

    Args:
        silent: the workers that do not answer now: they are watched elsewhere.
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
        self._askers: dict[int, Asker] = {}
        self._behind: dict[tuple[int, int], Behind] = {}
        #: A look at one link that takes long keeps nobody from looking at another.
        self._looks: dict[tuple[int, int], asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Watches until cancelled."""
        lord = await self._sessions.lord()
        try:
            while True:
                cluster = await read_cluster(lord)
                after = await settings.seconds(lord, "failover_after", settings.FAILOVER_AFTER_S)
                links = synchronous_links(cluster, self._silent())
                self._behind = {k: b for k, b in self._behind.items() if k in links}
                self._begin_looks(cluster.id, links)
                await self._judge(cluster.id, after)
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            for look in self._looks.values():
                look.cancel()
            for asker in self._askers.values():
                await asker.close()
            await lord.close()

    def _begin_looks(self, cluster_id: str, links: set[tuple[int, int]]) -> None:
        for link, look in list(self._looks.items()):
            if look.done():
                look.result()
                del self._looks[link]
        for link in links - self._looks.keys():
            self._looks[link] = asyncio.create_task(self._look(cluster_id, *link))

    def _asker(self, node: int) -> Asker:
        if node not in self._askers:
            self._askers[node] = Asker(self._sessions, node)
        return self._askers[node]

    async def _look(self, cluster_id: str, src: int, dest: int) -> None:
        """Notes whether a subscriber has confirmed what was there at the look before."""
        try:
            channel = names.channel(cluster_id, src, dest)
            found = await self._asker(src).ask(_CONFIRMED, channel)
        except (*NO_ANSWER, LordLost):
            self._behind.pop((src, dest), None)
            return
        confirmed, end = (int(found[0][0] or 0), int(found[0][1])) if found else (0, 1)
        behind, now = self._behind.get((src, dest)), time.monotonic()
        if behind is None or confirmed >= behind.position:
            self._behind[src, dest] = Behind(end, now, now)
        else:
            behind.still = now

    async def _judge(self, cluster_id: str, after: float) -> None:
        for (src, dest), behind in list(self._behind.items()):
            if behind.still - behind.since < after:
                continue
            if await self._broken(cluster_id, src, dest, behind):
                silent = behind.still - behind.since
                reason = f"nothing confirmed for {silent:.1f} s though both nodes answer"
                log.warning("link broken", src=src, dest=dest, reason=reason)
                await self._suspend(src, dest, reason)
                self._behind.pop((src, dest), None)
                return

    async def _broken(self, cluster_id: str, src: int, dest: int, behind: Behind) -> bool:
        """What the subscriber says: it hears nothing, or it has come so far and is not heard."""
        try:
            silent_for = time.monotonic() - behind.since
            channel = names.channel(cluster_id, src, dest)
            found = await self._asker(dest).ask(_RECEIVED, silent_for, channel)
        except (*NO_ANSWER, LordLost):
            return False
        hears, received = found[0]
        return not hears or int(received) >= behind.position


def synchronous_links(cluster: Cluster, silent: set[int]) -> set[tuple[int, int]]:
    """Pairs of nodes that answer, a primary's and its replica's, between which commits wait."""
    return {
        (cluster.primaries[c.part_name].owner, c.owner)
        for c in cluster.copies
        if c.prv is not None
        and c.stale_since is None
        and c.part_name in cluster.primaries
        and cluster.tables[c.relation].sync
        and not {cluster.primaries[c.part_name].owner, c.owner} & silent
    }
