"""Looks after the standby names of the workers: every commit waits for the replicas that it should.

Commands set them by themselves. What else may happen to them (an administrator, another cluster on the
same server, a configuration file that was put back) is found and mended here within seconds. So is what a
shardlord leaves that dies between writing the setting and the last walsender's reading it: the first look
of the next leadership is a close one.
"""

from __future__ import annotations

import asyncio
import time

import structlog

from shardman import names
from shardman.errors import Temporary
from shardman.lord.ask import NO_ANSWER, Askers
from shardman.lord.journal import LordLost
from shardman.lord.named_locks import NamedLocks
from shardman.lord.policies.nodes import NodeHealth
from shardman.lord.policies.standby_names import WorkerStandbyNames
from shardman.lord.sessions import Sessions
from shardman.lord.watchers.looks import Looks
from shardman.lord.watchers.once import Once
from shardman.pg import standby_names
from shardman.pg.connection import Connection
from shardman.sql.loader import queries
from shardman.steps.catalog import value

log = structlog.get_logger()

EVERY_S = 3.0
#: A node that does not answer within this is looked at the next time.
PATIENCE_S = 10.0


class StandbyNames:
    """Keeps the standby names of all workers of one leadership complete.

    Args:
        named_locks: whoever changes those of a node takes the lock.
        nodes: what is known of the workers: those that are silent are not asked.
    """

    def __init__(
        self,
        sessions: Sessions,
        askers: Askers,
        named_locks: NamedLocks,
        nodes: NodeHealth,
    ) -> None:
        self._sessions = sessions
        self._askers = askers
        self._named_locks = named_locks
        self._nodes = nodes
        self._policy = WorkerStandbyNames()
        self._complaints = Once()
        self._wanted: dict[int, list[str]] = {}

    async def run(self) -> None:
        """Goes on until cancelled."""
        lord = await self._sessions.lord()
        try:
            async with asyncio.TaskGroup() as group:
                looks = Looks(group, "look at standby names of node", self._look)
                while True:
                    rows = await lord.execute(queries("watch")["wanted_standby_names"])
                    self._wanted = {int(n): list(wanted) for n, wanted in await rows.fetchall()}
                    self._policy.keep(self._wanted.keys())
                    looks.keep(self._wanted.keys())
                    await asyncio.sleep(EVERY_S)
        finally:
            await lord.close()

    async def _look(self, node: int) -> float:
        if node in self._nodes.silent():
            return EVERY_S
        try:
            async with asyncio.timeout(PATIENCE_S):
                rows = await self._askers.ask(node, "show synchronous_standby_names")
                wanted, text = self._wanted.get(node, []), str(rows[0][0])
                if self._policy.needs_look(node, wanted, text, time.monotonic()):
                    await self._look_closely(node)
            self._complaints.well(node)
        except (*NO_ANSWER, Temporary) as error:
            if self._complaints.first(node):
                log.warning("standby names", node=node, error=str(error) or "timeout")
        except LordLost:
            pass  # Who reads the metadata notices it.
        return EVERY_S

    async def _look_closely(self, node: int) -> None:
        async with self._named_locks.take([f"standby_names {node}"]):
            lord = await self._sessions.lord()
            try:
                # What was wanted a moment ago a command may have changed.
                wanted = list(await value(lord, "select shardman.synchronous_channels(%s)", node))
                right = await self._mend(lord, node, wanted)
            finally:
                await self._sessions.give_back(lord)
        self._policy.was_right(node, wanted, right, time.monotonic())

    async def _mend(self, lord: Connection, node: int, wanted: list[str]) -> str:
        conn = await self._sessions.open(node, lord)
        try:
            prefix = names.channels_of(self._sessions.cluster_id, node)
            before = await standby_names.setting(conn)
            right = await standby_names.set_replicas(conn, prefix, wanted, sure=True, taken=True)
            if right is None:
                return before  # Somebody else's, and nobody of ours to be waited for.
            if right != before:
                log.warning("standby names put right", node=node, was=before, now=right)
            return right
        finally:
            await self._sessions.give_back(conn)
