"""Ends the maintenance of nodes that were away and are back, or whose time is over.

Of one that answers the replicas catch up and are waited for again (`commands.maintain`); one that is still
silent when its time is over is a dead node like any other from then on. The time stands in the metadata, so
the next shardlord goes by it too; one that began after a node was back does not know that it was away.
"""

from __future__ import annotations

import asyncio
import json
import time

import structlog

from shardman.commands.maintain import Maintain
from shardman.lord.metadata import Metadata
from shardman.lord.policies.maintenance import Endings, Returns
from shardman.lord.policies.nodes import NodeHealth
from shardman.lord.sessions import Sessions
from shardman.pg.connection import Connection
from shardman.sql.loader import queries
from shardman.steps.catalog import value

log = structlog.get_logger()

LOOK_EVERY_S = 1.0


class Maintenance:
    """Watches the time of one leadership's nodes in maintenance.

    Args:
        nodes: is told whose time is over.
    """

    def __init__(self, sessions: Sessions, metadata: Metadata, nodes: NodeHealth) -> None:
        self._sessions = sessions
        self._metadata = metadata
        self._nodes = nodes
        self._endings = Endings()
        self._returns = Returns()

    async def run(self) -> None:
        """Looks until cancelled."""
        lord = await self._sessions.lord()
        try:
            while True:
                # Also where nobody asks: an absence before the planned one is no return from that.
                returned = self._nodes.returned()
                if self._metadata.known.cluster.maintained:
                    await self._look(lord, returned)
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            await lord.close()

    async def _look(self, lord: Connection, returned: set[int]) -> None:
        rows = await (await lord.execute(queries("watch")["maintenance"])).fetchall()
        over = {node for node, _, is_over in rows if is_over}
        self._nodes.overdue(over)
        now, silent = time.monotonic(), self._nodes.silent()
        untils = {node: until for node, until, _ in rows}
        back = self._returns.back(untils, silent | returned, now)
        for node in self._endings.due(over | back, silent, now):
            options = Maintain(node, maintain=False).options()
            cmd = await value(
                lord, "select shardman.accept_once(%s, %s)", Maintain.name, json.dumps(options)
            )
            if cmd is not None:
                log.info("maintenance over", node=node, cmd=cmd)
