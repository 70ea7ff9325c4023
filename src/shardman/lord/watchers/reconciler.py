"""Calls every node's own `shardman.reconcile()` now and then, and on a node's return.

Nodes follow the metadata by themselves (triggers in the apply worker). What they could not mend then,
because a lock was held or a transaction was older than the change, is tried again here. Each visit can
be cut short anywhere: it does what the catalog says is to be done. Where a node was in line and nothing
was written since, it is not called (`policies.visits.InLine`).
"""

from __future__ import annotations

import asyncio
import time

import psycopg
import structlog
from psycopg.types.json import Jsonb

from shardman.errors import RemovedNodeAway, UserError
from shardman.lord.ask import interruptible
from shardman.lord.metadata import Known, Metadata
from shardman.lord.policies.visits import PAUSE_S, AwayNodes, Change, InLine, Visit
from shardman.lord.sessions import Sessions
from shardman.lord.watchers.looks import Looks
from shardman.lord.watchers.once import Once
from shardman.lord.watchers.prepared_leftovers import AGE_S, end_prepared_leftovers
from shardman.pg.connection import Connection
from shardman.pg.schema import is_version
from shardman.sql.loader import queries
from shardman.steps.catalog import value

log = structlog.get_logger()

#: How often it is looked who is to be visited, unless the metadata change.
WHO_EVERY_S = 5.0


class Reconciler:
    """One visitor for each node."""

    def __init__(self, sessions: Sessions, metadata: Metadata) -> None:
        self._sessions = sessions
        self._metadata = metadata
        self._lord: Connection
        self._conns: dict[int, Connection] = {}
        self._nodes = AwayNodes()
        self._in_line = InLine()
        #: Set when a node that was away is back: what was left for it can be done.
        self.returned = asyncio.Event()
        #: Nodes that were away: what was granted and revoked meanwhile has not reached them.
        self._unaware: set[int] = set()
        #: Nodes that did not receive the metadata at the last visit.
        self.unserved: set[int] = set()
        self._complaints = Once()

    @property
    def away(self) -> set[int]:
        """Nodes that could not be reached at the last visit."""
        return self._nodes.away

    async def run(self) -> None:
        """Keeps a visitor for every node until cancelled."""
        self._lord = await self._sessions.lord()
        try:
            async with asyncio.TaskGroup() as group:
                visits = Looks(group, "visit of node", self._visit, self._leave)
                while True:
                    known = self._metadata.known
                    nodes = await self._visited(known)
                    visits.keep(nodes)
                    self._nodes.keep(nodes)
                    await self._metadata.change(known, WHO_EVERY_S)
        finally:
            await self._lord.close()

    async def _visited(self, known: Known) -> set[int]:
        """The members, and those that were removed and do not know it."""
        nodes = known.cluster.nodes.values()
        found = {n.id for n in nodes if n.lord or n.is_active_worker}
        if any(n.status == "removed" for n in nodes):
            cur = await self._lord.execute(queries("watch")["unknowing"])
            found |= {int(row[0]) for row in await cur.fetchall()}
        return found

    async def _visit(self, node: int) -> float:
        try:
            visit = await self._bring_in_line(node)
        except psycopg.errors.LockNotAvailable:
            visit = Visit.LOCKED
        except (psycopg.Error, UserError) as error:
            await self._leave(node)
            visit = _failed(error)
        change = self._nodes.visited(node, visit)
        if change is Change.BACK:
            log.info(change.value, node=node)
            self.returned.set()
        elif change is not None:
            self._unaware.add(node)
            log.warning(change.value, node=node)
        return PAUSE_S[visit]

    async def _leave(self, node: int) -> None:
        self._in_line.forget(node)
        if (conn := self._conns.pop(node, None)) is not None:
            await conn.close()

    async def _bring_in_line(self, node: int) -> Visit:
        conn = self._conns.get(node)
        if conn is None:
            conn = self._conns[node] = await self._sessions.open(node, self._lord)
        return await interruptible(conn, self._work(conn, node))

    async def _work(self, conn: Connection, node: int) -> Visit:
        prefix = f"shardman_{self._sessions.cluster_id}_c"
        cur = await conn.execute(queries("watch")["visit"], (prefix, AGE_S))
        row = await cur.fetchone()
        if row is None or row[0] != node:
            return Visit.IN_LINE  # It was removed, and is a node again under another id.
        if self._removed(node):
            return Visit.IN_LINE  # What is left to be done there is the janitor's.
        if not is_version(row[1]) and not await self._up_to_date(conn, node):
            return Visit.IN_LINE
        cur = await conn.execute(queries("watch")["visit_of_ours"])
        branched, changes = await cur.fetchone() or (None, None)
        if not await self._is_itself(node, row[3], row[4], branched):
            return Visit.AWAY
        (self.unserved.discard if row[5] else self.unserved.add)(node)
        await end_prepared_leftovers(conn, self._lord, self._sessions.cluster_id, row[2])
        if node in self._unaware:
            await self._give_rights(conn, node)
        return await self._reconcile(conn, node, changes)

    async def _reconcile(self, conn: Connection, node: int, changes: int | None) -> Visit:
        """Unless nothing has changed there since it was in line.

        Args:
            changes: counted before this visit did anything there.
        """
        now = time.monotonic()
        if self._in_line.is_known(node, changes, now):
            return Visit.IN_LINE
        cur = await conn.execute("select shardman.reconcile(), shardman.has_untold_roads()")
        left, untold = await cur.fetchone() or (0, False)
        if untold:
            # From now on ordinary roles of other nodes come by these, and their old mappings go.
            await self._lord.execute(
                "update shardman.nodes set roads = true where id = %s", (node,)
            )
        again = await value(
            conn, "select shardman.validate_a_check() or shardman.validate_a_reference()"
        )
        visit = Visit.DIFFERS if left else Visit.IN_LINE
        self._in_line.found(node, visit, None if again else changes, now)
        return visit

    async def _give_rights(self, conn: Connection, node: int) -> None:
        """To a node that was away, those that the lord's database has by now. Cut short, it is done again at
        the next visit."""
        if node != 0:
            rights = await value(self._lord, "select shardman.rights_everywhere()")
            taken = await value(conn, "select shardman.take_rights(%s)", Jsonb(rights))
            if taken:
                log.info("rights given", node=node, tables=taken)
        self._unaware.discard(node)

    async def _is_itself(
        self, node: int, timeline: int, flushed: str, branched: str | None
    ) -> bool:
        """Whether the server is what it was. One that was restored to an earlier time has lost what others
        have confirmed to the application: nothing is done on it."""
        problem = await value(
            self._lord,
            "select shardman.saw_node(%s, %s, %s, %s)",
            node,
            timeline,
            flushed,
            branched,
        )
        if problem is not None and self._complaints.first(node):
            log.error("node is not what it was", node=node, reason=problem)
            # No new session is opened either (`NotTheNode`), so it counts as one that does not answer.
            self._sessions.sever(node)
        elif problem is None:
            self._complaints.well(node)
        return problem is None

    async def _up_to_date(self, conn: Connection, node: int) -> bool:
        try:
            await self._sessions.schemas.bring_up_to_date(node, conn)
        except UserError as error:
            log.warning("schema not brought up to date", node=node, reason=str(error))
            return False
        return True

    def _removed(self, node: int) -> bool:
        known = self._metadata.known.cluster.nodes.get(node)
        return known is not None and known.status == "removed" and not known.lord


def _failed(error: Exception) -> Visit:
    if not isinstance(error, RemovedNodeAway):
        return Visit.AWAY
    answered = isinstance(error.__cause__, UserError)
    return Visit.REMOVED_THERE if answered else Visit.REMOVED_AWAY
