"""Lets roles of all nodes follow those of the lord's server, where they were the same before.

PostgreSQL tells nobody that a role was changed, so all servers are asked. Stored passwords go from one to the
other and are written down nowhere; what is kept here are digests. A shardlord that dies leaves nothing.
"""

from __future__ import annotations

import asyncio
import contextlib

import structlog
from psycopg.types.json import Jsonb

from shardman.lord.ask import NO_ANSWER, Askers
from shardman.lord.journal import LordLost
from shardman.lord.metadata import Metadata
from shardman.lord.policies.nodes import NodeHealth
from shardman.lord.policies.roles import Follow, Proofs, Roles
from shardman.sql.loader import queries
from shardman.tasks import all_of

log = structlog.get_logger()

LOOK_EVERY_S = 3.0


class RolesAlike:
    """The look at the roles of one leadership."""

    def __init__(self, askers: Askers, metadata: Metadata, health: NodeHealth) -> None:
        self._askers = askers
        self._metadata = metadata
        self._health = health
        self._roles = Roles()
        #: What failed is not tried again before the role is changed again.
        self._failed: set[Follow] = set()

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            await self._look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self) -> None:
        cluster = self._metadata.known.cluster
        found: dict[int, Proofs] = {}

        async def ask(node: int) -> None:
            with contextlib.suppress(*NO_ANSWER, LordLost):
                rows = await self._askers.ask(node, queries("roles")["proofs"])
                found[node] = {row[0]: row[1] for row in rows}

        await all_of(*(ask(n) for n in set(cluster.members) - self._health.silent()))
        lord = found.pop(cluster.lord.id, None)
        for due in self._roles.due(lord or {}, found):
            if due not in self._failed:
                await self._follow(cluster.lord.id, due)

    async def _follow(self, lord: int, due: Follow) -> None:
        try:
            rows = await self._askers.ask(lord, queries("roles")["role"], due.role, due.role)
            if not rows:
                return
            ((wanted, proof),) = rows
            ((failed,),) = await self._askers.ask(
                due.node, queries("roles")["follow"], Jsonb(wanted), due.before
            )
        except (*NO_ANSWER, LordLost):
            return
        if failed is None:
            # It may be changed again before the next look. Where it could not become all of it, it is another.
            self._roles.same[due.node, due.role] = proof
            log.info("role changed as on the lord", node=due.node, role=due.role)
            return
        self._failed.add(due)
        log.warning("role not changed as on the lord", node=due.node, role=due.role, reason=failed)
