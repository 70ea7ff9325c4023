"""Calls every node's own `shardman.reconcile()` now and then, and on a node's return.

Nodes follow the metadata by themselves (triggers in the apply worker). What they could not mend then,
because a lock was held or a transaction was older than the change, is tried again here.
"""

from __future__ import annotations

import asyncio

import psycopg
import structlog
from psycopg import sql

from shardman.errors import NodeGone, UserError
from shardman.lord.orphans import end_orphans
from shardman.lord.sessions import Sessions
from shardman.pg.schema import install, is_current
from shardman.steps.base import Connection
from shardman.steps.catalog import value

log = structlog.get_logger()

#: Pause between two visits of a node that is in line, and of one that is not.
CALM_S = 5.0
#: For all that a new version of our schema needs on a node.
LOCK_TIMEOUT_MS = 300
BUSY_S = 0.5
DOWN_S = 1.0
#: The same, of one that was removed while it was down: it may never come back.
REMOVED_S = 5.0

#: The members, and those that were removed and do not know it.
_VISITED = """
select id from shardman.nodes where lord or worker_status = 'active'
union
select (s.args ->> 'node')::int
  from shardman.cmd_steps s join shardman.cmd_log l on l.id = s.cmd_id and l.attempt = s.attempt
 where s.kind = 'clean_node' and s.state = 'started' and l.status = 'success'
"""
_REMOVED = "select worker_status = 'removed' and not lord from shardman.nodes where id = %s"


class Reconciler:
    """One visitor for each node."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._lord: Connection
        self._visitors: dict[int, asyncio.Task[None]] = {}
        #: Nodes that could not be reached at the last visit.
        self.away: set[int] = set()
        #: Set when a node that was away is back: what was left for it can be done.
        self.returned = asyncio.Event()

    async def run(self) -> None:
        """Keeps a visitor for every node until cancelled."""
        self._lord = await self._sessions.lord()
        try:
            while True:
                cur = await self._lord.execute(_VISITED)
                self._keep({int(r[0]) for r in await cur.fetchall()})
                for visitor in self._visitors.values():
                    if visitor.done() and not visitor.cancelled() and visitor.exception():
                        visitor.result()
                await asyncio.sleep(1.0)
        finally:
            for visitor in self._visitors.values():
                visitor.cancel()
            await self._lord.close()

    def _keep(self, nodes: set[int]) -> None:
        for gone in self._visitors.keys() - nodes:
            self._visitors.pop(gone).cancel()
            self.away.discard(gone)
        for new in nodes - self._visitors.keys():
            self._visitors[new] = asyncio.create_task(self._visit(new))

    async def _visit(self, node_id: int) -> None:
        conn: Connection | None = None
        try:
            while True:
                try:
                    if conn is None:
                        conn = await self._connect(node_id)
                    pause = await self._bring_in_line(conn, node_id)
                except psycopg.errors.LockNotAvailable:
                    pause = DOWN_S  # The node is there; what it needs is not free just now.
                except (psycopg.Error, UserError) as error:
                    if conn is not None:
                        await conn.close()
                    conn, pause = None, REMOVED_S if isinstance(error, NodeGone) else DOWN_S
                    self._note(node_id, there=_answered(error))
                else:
                    self._note(node_id, there=True)
                await asyncio.sleep(pause)
        finally:
            if conn is not None:
                await conn.close()

    async def _bring_in_line(self, conn: Connection, node_id: int) -> float:
        """What a visit does; returns the pause until the next."""
        if await value(conn, "select node_id is distinct from %s from shardman.local", node_id):
            return CALM_S  # It was removed, and is a node again under another id.
        if await value(self._lord, _REMOVED, node_id):
            return CALM_S  # What is left to be done there is the janitor's.
        if not await is_current(conn):
            await _upgrade(conn)
            log.info("schema brought up to date", node=node_id)
        left = await reconcile(conn)
        await end_orphans(conn, self._lord, self._sessions.cluster_id)
        return BUSY_S if left else CALM_S

    def _note(self, node_id: int, *, there: bool) -> None:
        if there and node_id in self.away:
            log.info("node back", node=node_id)
            self.away.discard(node_id)
            self.returned.set()
        elif not there and node_id not in self.away:
            log.warning("node away", node=node_id)
            self.away.add(node_id)

    async def _connect(self, node_id: int) -> Connection:
        return await self._sessions.open(node_id, self._lord)


async def _upgrade(conn: Connection) -> None:
    """Somebody may have an open transaction that has read one of our views: others do not wait behind us."""
    await conn.execute(sql.SQL("set lock_timeout = {}").format(sql.Literal(LOCK_TIMEOUT_MS)))
    try:
        await install(conn)
    finally:
        await conn.execute("set lock_timeout = 0")


def _answered(error: Exception) -> bool:
    """Whether it is a removed node that is there and knows nothing of this cluster any more."""
    return isinstance(error, NodeGone) and isinstance(error.__cause__, UserError)


async def reconcile(conn: Connection, relation: str | None = None) -> int:
    """Makes a node match its metadata; returns the number of differences left."""
    row = await (await conn.execute("select shardman.reconcile(%s)", (relation,))).fetchone()
    return int(row[0]) if row else 0
