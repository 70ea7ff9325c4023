"""Lets the commits in the lord's database wait until a worker has them (`lord_sync`).

What the shardlord itself decides it waits for by itself, see `Journal.copied`. The list of the server is
for everybody else's commits: a command that was accepted is not lost with the lord's server. The
shardlord's own sessions never wait for the list, so it can always shorten it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from shardman.errors import Temporary
from shardman.lord import settings
from shardman.lord.sessions import Sessions
from shardman.pg import standbys
from shardman.steps.base import Connection
from shardman.steps.catalog import value

log = structlog.get_logger()

EVERY_S = 0.5

#: A worker on the lord's own server would be lost together with it.
_COPIES = """
select coalesce(array_agg(s.slot_name::text order by s.slot_name) filter (where s.active), '{}')
  from shardman.nodes n join shardman.local l on true
  join pg_replication_slots s on s.slot_name = format('shardman_meta_%%s_%%s', l.cluster, n.id)
 where n.worker_status = 'active' and n.id <> all (%s::int[])
   and n.system_id is distinct from (select system_identifier::text from pg_control_system())
"""


class Copies:
    """Keeps `synchronous_standby_names` of the lord's server right as far as the metadata go.

    Args:
        silent: the workers that do not answer now: one that hangs streams for its server, for a while.
    """

    def __init__(self, sessions: Sessions, silent: Callable[[], set[int]]) -> None:
        self._sessions = sessions
        self._silent = silent
        #: Since when no worker has streamed.
        self._alone: float | None = None
        self._warned = False

    async def run(self) -> None:
        """Goes on until cancelled."""
        lord = await self._sessions.lord()
        try:
            while True:
                try:
                    await self._look(lord)
                except Temporary as busy:
                    log.warning("list of standbys of the lord", error=str(busy))
                await asyncio.sleep(EVERY_S)
        finally:
            await lord.close()

    async def _look(self, lord: Connection) -> None:
        if await value(lord, "select shardman.setting('lord_sync', 'on')") == "off":
            await standbys.set_copies(lord, self._sessions.cluster_id, [])
            return
        streaming = list(await value(lord, _COPIES, list(self._silent())))
        if streaming:
            self._alone, self._warned = None, False
        elif not await self._alone_for_long(lord):
            return
        ours = await standbys.set_copies(lord, self._sessions.cluster_id, streaming)
        if not ours and not self._warned:
            log.warning("synchronous_standby_names is somebody else's: lord_sync does not work")
            self._warned = True

    async def _alone_for_long(self, lord: Connection) -> bool:
        self._alone = self._alone or time.monotonic()
        after = await settings.seconds(lord, "failover_after", settings.FAILOVER_AFTER_S)
        if time.monotonic() - self._alone < after:
            return False
        workers = await value(
            lord, "select count(*) from shardman.nodes where worker_status = 'active'"
        )
        if workers and not self._warned:
            log.warning(
                "no worker streams the metadata: commits in the lord's database do not wait"
            )
            self._warned = True
        return True
