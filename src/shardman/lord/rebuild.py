"""Gives partitions that lost a replica a new one, when nobody has done it for a while.

`set_replevel` is remembered: a table whose partitions have had fewer replicas than asked for during
`rebuild_after` seconds, and could have more, gets the command again. A node that was away only for a
while has its chance to come back first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from shardman.lord.cluster_reader import read_cluster
from shardman.lord.sessions import Sessions
from shardman.model.cluster import Cluster
from shardman.model.replicas import changes
from shardman.steps.base import Connection

log = structlog.get_logger()

LOOK_EVERY_S = 2.0
DEFAULT_REBUILD_AFTER_S = 600.0


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

    async def run(self) -> None:
        """Looks until cancelled."""
        lord = await self._sessions.lord()
        try:
            while True:
                await self._look(lord, await read_cluster(lord))
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            await lord.close()

    async def _look(self, lord: Connection, cluster: Cluster) -> None:
        nodes = {n.id for n in cluster.workers} - self._silent()
        short = {
            t.relation
            for t in cluster.tables.values()
            if t.replevel and any(c.add for c in changes(cluster, t.relation, t.replevel, nodes))
        }
        now = time.monotonic()
        self._short = {relation: self._short.get(relation, now) for relation in short}
        if not short:
            return
        after = await self._after(lord)
        for relation in sorted(r for r, since in self._short.items() if now - since >= after):
            await self._submit(lord, relation, cluster.tables[relation].replevel)
            self._short[relation] = now

    async def _after(self, lord: Connection) -> float:
        cur = await lord.execute(
            "select shardman.setting('rebuild_after', %s)::float", (str(DEFAULT_REBUILD_AFTER_S),)
        )
        row = await cur.fetchone()
        return float(row[0]) if row else DEFAULT_REBUILD_AFTER_S

    async def _submit(self, lord: Connection, relation: str, replevel: int) -> None:
        """Unless the same is on its way."""
        await lord.execute(
            "select shardman.set_replevel(%(relation)s, %(level)s) where not exists ("
            " select from shardman.cmd_log l join shardman.cmd_opts o on o.cmd_id = l.id"
            " where l.cmd_type = 'set_replevel' and l.status in ('waiting', 'in progress')"
            " and o.opt = %(relation)s)",
            {"relation": relation, "level": replevel},
        )
        log.info("rebuild", relation=relation, replevel=replevel)
