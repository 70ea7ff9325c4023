"""Looks after the lists of synchronous standbys: every commit waits for the replicas that it should.

Commands set the lists by themselves. What else may happen to one (an administrator, another cluster on
the same server, a configuration file that was put back) is found and mended here within seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psycopg
import structlog

from shardman import names
from shardman.errors import Temporary, UserError
from shardman.lord.sessions import Sessions
from shardman.lord.turns import Turns
from shardman.pg import standbys
from shardman.steps.base import Connection
from shardman.steps.catalog import value
from shardman.tasks import all_of

log = structlog.get_logger()

EVERY_S = 3.0
#: A node that does not answer within this is looked at the next time.
PATIENCE_S = 10.0

_WORKERS = "select id from shardman.nodes where worker_status = 'active' order by id"


class Lists:
    """Keeps the lists of all workers of one tenure complete.

    Args:
        turns: whoever changes a list of a node takes its turn.
        silent: the workers that do not answer now.
    """

    def __init__(self, sessions: Sessions, turns: Turns, silent: Callable[[], set[int]]) -> None:
        self._sessions = sessions
        self._turns = turns
        self._silent = silent
        self._said: set[int] = set()

    async def run(self) -> None:
        """Goes on until cancelled."""
        lord = await self._sessions.lord()
        try:
            while True:
                await asyncio.sleep(EVERY_S)
                nodes = [int(r[0]) for r in await (await lord.execute(_WORKERS)).fetchall()]
                await all_of(*(self._look(n) for n in nodes if n not in self._silent()))
        finally:
            await lord.close()

    async def _look(self, node: int) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S), self._turns.take([f"standbys {node}"]):
                lord = await self._sessions.lord()
                try:
                    await self._mend(lord, node)
                finally:
                    await self._sessions.give_back(lord)
            self._said.discard(node)
        except (psycopg.Error, UserError, Temporary, TimeoutError) as error:
            if node not in self._said:
                log.warning("list of standbys", node=node, error=str(error) or "timeout")
            self._said.add(node)

    async def _mend(self, lord: Connection, node: int) -> None:
        wanted = list(await value(lord, "select shardman.synchronous_channels(%s)", node))
        conn = await self._sessions.open(node, lord)
        try:
            prefix = names.channels_of(self._sessions.cluster_id, node)
            before = await standbys.setting(conn)
            await standbys.set_list(conn, prefix, wanted, sure=True)
            if (now := await standbys.setting(conn)) != before:
                log.warning("list of standbys put right", node=node, was=before, now=now)
        finally:
            await self._sessions.give_back(conn)
