"""Lets the commits in the lord's database wait until a worker has them (`lord_sync`).

What the shardlord itself decides it waits for by itself, see `Journal.copied`. The setting of the server is
for everybody else's commits: a command that was accepted is not lost with the lord's server. The
shardlord's own sessions never wait for them, so it can always take names off; while no shardlord runs commits
wait for the workers that are listed, and the next one looks at once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import structlog

from shardman import names
from shardman.errors import Temporary
from shardman.lord.metadata import Metadata
from shardman.lord.policies.nodes import NodeHealth
from shardman.lord.policies.standby_names import LordStandbyNames as Policy
from shardman.lord.sessions import Sessions
from shardman.lord.watchers.once import Once
from shardman.pg import standby_names
from shardman.pg.connection import Connection
from shardman.sql.loader import queries
from shardman.tasks import pause

log = structlog.get_logger()

EVERY_S = 0.5
#: What another cluster has in the setting is looked at so often.
OTHERS_EVERY_S = 5.0


class LordStandbyNames:
    """Keeps the standby names of the lord's server right as far as the metadata go.

    Args:
        nodes: what is known of the workers: one that hangs streams for its server, for a while.
    """

    def __init__(self, sessions: Sessions, metadata: Metadata, nodes: NodeHealth) -> None:
        self._sessions = sessions
        self._metadata = metadata
        self._nodes = nodes
        self._policy = Policy()
        self._complaints = Once()
        self._closely_at = 0.0

    async def run(self) -> None:
        """Goes on until cancelled."""
        lord = await self._sessions.lord()
        try:
            while True:
                try:
                    await self._look(lord)
                except Temporary as busy:
                    log.warning("standby names of the lord", error=str(busy))
                await pause(EVERY_S)
        finally:
            await lord.close()

    async def _look(self, lord: Connection) -> None:
        known, now = self._metadata.known, time.monotonic()
        away = list(self._nodes.silent() | known.cluster.maintained)
        cur = await lord.execute(queries("watch")["metadata_copies"], (away,))
        row = await cur.fetchone()
        assert row is not None
        answer = self._policy.decide(
            sync=known.settings.lord_sync,
            streaming=row[0],
            workers=len(known.cluster.workers),
            after=known.settings.failover_after,
            now=now,
        )
        if answer.warn:
            log.warning(
                "no worker streams the metadata: commits in the lord's database do not wait"
            )
        if answer.copies is None or self._is_right(row[1], answer.copies, now):
            return
        self._closely_at = now
        cluster_id = self._sessions.cluster_id
        if await standby_names.set_metadata_copies(lord, cluster_id, answer.copies):
            self._complaints.well("foreign")
        elif self._complaints.first("foreign"):
            log.warning("synchronous_standby_names is somebody else's: lord_sync does not work")

    def _is_right(self, text: str, copies: Sequence[str], now: float) -> bool:
        """Whether the setting says so already. What others have in it is looked at less often."""
        found = standby_names.read(text)
        if found is None:
            return False
        ours = names.meta_slot(self._sessions.cluster_id, 0)[:-1]
        others = tuple(c for c in found.copies if not c.startswith(ours))
        if (found.channels or others) and now - self._closely_at >= OTHERS_EVERY_S:
            return False
        return text == str(replace(found, copies=(*copies, *others)))
