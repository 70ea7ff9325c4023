"""Gives partitions that lost a replica one again.

An old copy that was left behind, for its primary changed or its node was away, is brought up to date
as soon as its node answers: little has to be copied. Otherwise `set_replevel` is remembered: a table
whose partitions have had fewer replicas than asked for during `rebuild_after` seconds, and could have
more, gets the command again. A node that was away only for a while has its chance to come back first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import structlog

from shardman.lord import settings
from shardman.lord.cluster_reader import read_cluster
from shardman.lord.sessions import Sessions
from shardman.model.cluster import Cluster
from shardman.model.replicas import changes
from shardman.steps.base import Connection

log = structlog.get_logger()

LOOK_EVERY_S = 2.0
#: Where every node is there no node's return is waited for.
NOBODY_AWAY_S = 30.0
#: An old copy that could not be brought up to date is tried again so much later, then after twice that.
AGAIN_S = 10.0

_SUBMIT = """
select shardman.accept(%(cmd_type)s, %(opts)s, null, session_user)
 where not exists (
    select from shardman.cmd_log l
     where l.cmd_type = %(cmd_type)s and l.status in ('waiting', 'in progress')
       and array(select o.opt from shardman.cmd_opts o where o.cmd_id = l.id order by o.id) = %(opts)s)
"""


class Rebuild:
    """Looks after the levels of one tenure.

    Args:
        silent: the workers that do not answer now.
    """

    def __init__(self, sessions: Sessions, silent: Callable[[], set[int]]) -> None:
        self._sessions = sessions
        self._silent = silent
        #: Since when a table has been below its level, by the monotonic clock.
        self._short: dict[str, float] = {}
        #: Since when every node has been there, by the same clock; None while one is not.
        self._complete: float | None = None
        #: When an old copy is tried again, and how long that was put off.
        self._again: dict[tuple[str, int], tuple[float, float]] = {}

    async def run(self) -> None:
        """Looks until cancelled."""
        lord = await self._sessions.lord()
        try:
            while True:
                cluster = await read_cluster(lord)
                alive = {n.id for n in cluster.workers} - self._silent()
                there = {n.id for n in cluster.places} & alive - await _uncleared(lord)
                await self._renew(lord, cluster, there)
                await self._look(lord, cluster, there, alive)
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            await lord.close()

    async def _renew(self, lord: Connection, cluster: Cluster, there: set[int]) -> None:
        now = time.monotonic()
        behind = list(_behind(cluster, there))
        self._again = {copy: again for copy, again in self._again.items() if copy in behind}
        for part, node in behind:
            at, pause = self._again.get((part, node), (now, AGAIN_S))
            if now >= at:
                self._again[part, node] = (now + pause, 2 * pause)
                await _submit(lord, "create_replica", [part, str(node)])

    async def _look(
        self, lord: Connection, cluster: Cluster, there: set[int], alive: set[int]
    ) -> None:
        short = {
            t.relation
            for t in cluster.tables.values()
            if t.replevel
            and any(c.add for c in changes(cluster, t.relation, t.replevel, there, alive))
        }
        now = time.monotonic()
        self._short = {relation: self._short.get(relation, now) for relation in short}
        # A node that clears up is as good as away: it has its chance to offer its old copies first.
        complete = not self._silent() and {n.id for n in cluster.places} <= there
        self._complete = (self._complete or now) if complete else None
        if not short:
            return
        after = await settings.seconds(lord, "rebuild_after", settings.REBUILD_AFTER_S)
        for relation in [r for r, since in sorted(self._short.items()) if self._due(since, after)]:
            level = cluster.tables[relation].replevel
            await _submit(lord, "set_replevel", [relation, str(level)])
            self._short[relation] = now

    def _due(self, since: float, after: float) -> bool:
        """Whether a table has been below its level for long enough."""
        now = time.monotonic()
        if now - since >= after:
            return True
        return self._complete is not None and now - max(since, self._complete) >= NOBODY_AWAY_S


async def _uncleared(lord: Connection) -> set[int]:
    """Nodes that take no copy yet (`steps.replication.check_cleared`)."""
    cur = await lord.execute(
        "select id from shardman.nodes n where exists (select from shardman.returns_of(n.id))"
    )
    return {int(row[0]) for row in await cur.fetchall()}


def _behind(cluster: Cluster, there: set[int]) -> Iterator[tuple[str, int]]:
    """Old copies, and their nodes, that can be brought up to date and are wanted."""
    for part, primary in sorted(cluster.primaries.items()):
        wanted = cluster.tables[primary.relation].replevel or 1
        missing = wanted - len(cluster.replicas_of(part))
        stale = [n for n in cluster.stale_replicas_of(part) if n in there]
        if primary.owner in there:
            yield from ((part, node) for node in stale[: max(missing, 0)])


async def _submit(lord: Connection, cmd_type: str, opts: list[str]) -> None:
    """Unless the same is on its way."""
    cur = await lord.execute(_SUBMIT, {"cmd_type": cmd_type, "opts": opts})
    if row := await cur.fetchone():
        log.info("rebuild", cmd=row[0], type=cmd_type, opts=opts)
