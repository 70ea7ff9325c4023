"""Lets every worker follow all of this lord's metadata. After a promotion the workers' subscriptions lead to
the former lord's database, or to nothing; after an upgrade they may lack tables that the older version did
not have; and somebody may have dropped or changed a slot, a subscription or the publication.

A worker's copy may be older than the lord's, so it is made equal to it at the instant from which the new
subscription goes on. Whether a worker follows is seen in its copy of `lord_term`, in the slot and in its
subscription, so this may be cut short anywhere and is done again: a slot that is left without a
subscription is dropped by the next try, which begins with that. The publication is mended when all slots
are gone: so a crash in between leaves workers that are seen not to follow. A copy of a worker's server that
has taken its slot is put out in the same way: the slot is made again, and the worker is there first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from datetime import datetime

import psycopg
import structlog
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from shardman import names
from shardman.errors import Temporary, UserError
from shardman.lord.metadata import Metadata
from shardman.lord.policies.nodes import NodeHealth
from shardman.lord.sessions import Sessions
from shardman.lord.watchers.once import Once
from shardman.pg import slots, strangers, subscriptions
from shardman.pg.connection import Connection
from shardman.pg.initialize import PUBLISHED, publish_metadata
from shardman.pg.retirement import retire
from shardman.pg.schema import is_current
from shardman.sql.loader import queries
from shardman.steps.catalog import value
from shardman.steps.copy import begin_at
from shardman.steps.nodes.metadata import copy_table
from shardman.tasks import all_of, pause

log = structlog.get_logger()

EVERY_S = 1.0
#: A worker that could not be asked which tables it follows, or is not upgraded yet, is asked again later.
AGAIN_S = 5.0
#: A slot cannot be made while write transactions run on the lord's server; another try is made later.
PATIENCE_S = 60.0


class Followers:
    """Brings the workers that do not follow this lord to do so."""

    def __init__(
        self,
        sessions: Sessions,
        metadata: Metadata,
        health: NodeHealth,
        unserved: Callable[[], Collection[int]],
    ) -> None:
        self._sessions = sessions
        self._metadata = metadata
        self._health = health
        self._unserved = unserved
        #: Workers that receive nothing although somebody receives from their slot, and since when, by the
        #: lord's clock.
        self._robbed: dict[int, datetime] = {}
        self._complaints = Once()
        #: Workers that may not follow every table yet, and when they are asked, by the monotonic clock. One
        #: that is added in this leadership, so by this version, does.
        self._unasked: dict[int, float] = {}
        #: When a worker that does not stream is looked at again.
        self._rests: dict[int, float] = {}
        #: The publication as it was when it was looked at last.
        self._publication: str | None = None

    async def run(self) -> None:
        """Goes on until cancelled."""
        lord = await self._sessions.lord()
        try:
            self._unasked = dict.fromkeys(self._members(), 0.0)
            while True:
                await self._mend_publication(lord)
                await self._put_thieves_out(lord)
                todo = await self._strays(lord) | await self._due(lord)
                await all_of(*(self._gather(node) for node in sorted(todo)))
                await pause(EVERY_S)
        finally:
            await lord.close()

    def _members(self) -> set[int]:
        return {n.id for n in self._metadata.known.cluster.workers if not n.lord}

    async def _mend_publication(self, lord: Connection) -> None:
        """Lets all workers begin anew when the publication is not what it was: streams have left out what
        they should have brought. From 18 on they do so without an error."""
        cluster = self._sessions.cluster_id
        known, self._publication = self._publication, await self._version(lord)
        if (known is None or known == self._publication) and self._publication is not None:
            return
        log.warning("publication of the metadata changed", by="somebody else")
        for node in self._members():
            await slots.drop(lord, names.meta_slot(cluster, node))
        # What is changed behind this is changed again: the next look must not take it for ours.
        async with lord.transaction():
            await publish_metadata(lord, cluster)
            self._publication = await self._version(lord)

    async def _version(self, lord: Connection) -> str | None:
        name = names.meta_publication(self._sessions.cluster_id)
        cur = await lord.execute(queries("watch")["metadata_publication"], (name,))
        row = await cur.fetchone()
        return str(row[0]) if row else None

    async def _put_thieves_out(self, lord: Connection) -> None:
        unserved = set(self._unserved()) - self._health.silent()
        self._robbed = {n: since for n, since in self._robbed.items() if n in unserved}
        for node in unserved & self._members():
            name = names.meta_slot(self._sessions.cluster_id, node)
            cur = await lord.execute(queries("watch")["receiver"], (self._robbed.get(node), name))
            if (row := await cur.fetchone()) is None:
                self._robbed.pop(node, None)
                continue
            whom, lives, now = row
            self._robbed.setdefault(node, now)
            if lives and not await self._is_served(node, name):
                log.error("slot used by somebody else", node=node, whom=whom)
                await lord.execute("select shardman.saw_thief(%s, %s)", (node, whom))
                await slots.drop(lord, name)
                del self._robbed[node]

    async def _is_served(self, node: int, name: str) -> bool:
        try:
            async with asyncio.timeout(AGAIN_S):
                lord = await self._sessions.lord()
                try:
                    conn = await self._sessions.open(node, lord)
                    try:
                        return bool(await value(conn, queries("watch")["is_served"], name))
                    finally:
                        await conn.close()
                finally:
                    await lord.close()
        except (psycopg.Error, UserError, TimeoutError):
            return True  # Nothing is known of it.

    async def _strays(self, lord: Connection) -> set[int]:
        """The workers that answer and do not stream."""
        cur = await lord.execute(queries("watch")["strays"])
        now = time.monotonic()
        found = {int(row[0]) for row in await cur.fetchall()}
        rest = 0.0 if self._metadata.known.settings.promoted else AGAIN_S
        todo = {n for n in found - self._health.silent() if self._rests.get(n, 0.0) <= now}
        self._rests = {n: now + rest if n in todo else self._rests.get(n, 0.0) for n in found}
        return todo

    async def _due(self, lord: Connection) -> set[int]:
        """The workers of which it is time to find out whether they follow every table."""
        now = time.monotonic()
        due = {node for node, at in self._unasked.items() if at <= now}
        if not due or await value(lord, queries("watch")["members_change"]):
            return set()
        members = self._members()
        self._unasked = {
            node: now + AGAIN_S if node in due else at
            for node, at in self._unasked.items()
            if node in members
        }
        return due & members

    async def _gather(self, node: int) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                if await self._follow(node):
                    log.info("node follows", node=node)
                    self._complaints.well(node)
        except (psycopg.Error, UserError, Temporary, TimeoutError) as error:
            if self._complaints.first(node):
                log.warning("node does not follow yet", node=node, reason=str(error) or "timeout")

    async def _follow(self, node: int) -> bool:
        lord = await self._sessions.lord()
        try:
            conn = await self._sessions.open(node, lord)
            try:
                # The reconciler brings it up to date first.
                if not await is_current(conn) or await self._follows(lord, conn, node):
                    return False
                await self._attach(lord, conn, node)
                self._unasked.pop(node, None)
                return True
            finally:
                await conn.close()
        finally:
            await lord.close()

    async def _follows(self, lord: Connection, conn: Connection, node: int) -> bool:
        """Whether the node has subscribed to this lord and will stream by itself."""
        name = names.meta_slot(self._sessions.cluster_id, node)
        query = "select shardman.setting('lord_term', '0')"
        if await value(lord, query) != await value(conn, query):
            return False
        publication = names.meta_publication(self._sessions.cluster_id)
        cur = await conn.execute(
            queries("watch")["metadata_subscription"], (publication, list(PUBLISHED), name)
        )
        row = await cur.fetchone()
        if row is None or not row[0]:
            return False
        if not await value(lord, queries("watch")["metadata_slot"], name):
            return False
        await self._same_way(lord, conn, name, row[1])
        await subscriptions.enable(conn, name)
        self._unasked.pop(node, None)
        return True

    async def _same_way(
        self, lord: Connection, conn: Connection, name: str, way: str | None
    ) -> None:
        """The subscription leads where the lord is, with its password of now.

        Args:
            way: where it leads; None where the nodes' role may not see that.
        """
        peer = (await self._sessions.address(0, lord)).peer
        if way is None or conninfo_to_dict(way) != conninfo_to_dict(peer):
            await conn.execute(
                sql.SQL("alter subscription {} connection {}").format(
                    sql.Identifier(name), sql.Literal(peer)
                )
            )

    async def _attach(self, lord: Connection, conn: Connection, node: int) -> None:
        name = names.meta_slot(self._sessions.cluster_id, node)
        peer = (await self._sessions.address(0, lord)).peer
        # It may have been the lord's database itself.
        await retire(conn, self._sessions.cluster_id)
        await strangers.refuse_subscription(conn, name)
        await strangers.refuse_slot(lord, name)
        await subscriptions.drop(conn, name)
        await slots.drop(lord, name)
        keeper = await self._sessions.replication(self._sessions.dsn, lord)
        first = f"{name}_new"
        try:
            snapshot = await slots.create_exporting(keeper, first, temporary=True)
            await self._copy(conn, name, snapshot, peer)
            # Not before the worker is ready to take it: a copy of its server may be waiting for it.
            await lord.execute(
                "select pg_copy_logical_replication_slot(%s::name, %s::name, false)", (first, name)
            )
            await subscriptions.enable(conn, name)
        finally:
            await keeper.close()
        # The position of the copy is known on the node once something has come through the stream.
        await lord.execute("update shardman.settings set value = value where name = 'lord_term'")

    async def _copy(self, conn: Connection, name: str, snapshot: str, peer: str) -> None:
        """Metadata and subscription change in one transaction on the node."""
        source = await self._sessions.lord()
        tables = list(PUBLISHED)
        try:
            await begin_at(source, snapshot)
            async with conn.transaction():
                await conn.execute("select shardman.expect_copy(%s)", (tables,))
                for table in tables:
                    await copy_table(
                        source,
                        conn,
                        sql.Identifier("shardman", table),
                        sql.Identifier("pg_temp", f"incoming_{table}"),
                    )
                await conn.execute("select shardman.merge_copy(%s)", (tables,))
                publication = names.meta_publication(self._sessions.cluster_id)
                await subscriptions.create(conn, name, peer, publication, enabled=False)
        finally:
            await source.close()
