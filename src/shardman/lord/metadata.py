"""What the shardlord knows of the cluster: read when it has changed, and shared by all who watch.

Triggers on the lord's metadata notify (`sql/routines/61_triggers.sql`), so what is known here is as old as a
notification takes, some milliseconds. One that was lost (somebody disabled a trigger, or restored rows
with `session_replication_role = replica`) is made up for by comparing versions every few seconds. What
must be exact, a plan or the last look before a failover, reads afresh.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from functools import cached_property

from shardman.lord.settings import Settings
from shardman.model.cluster import Cluster, Copy
from shardman.pg.connection import Connection
from shardman.pg.metadata import read_cluster
from shardman.sql.loader import queries
from shardman.steps.catalog import value

#: A command changes the metadata in several transactions: they are read together.
PAUSE_S = 0.02


@dataclass(frozen=True, eq=False)
class Known:
    """The metadata at one instant. Compared by identity: while it is the same object nothing has changed,
    and what was concluded from it need not be concluded again."""

    cluster: Cluster
    settings: Settings

    @cached_property
    def pairs(self) -> frozenset[tuple[int, int]]:
        """Nodes of a primary and of a replica that follows it."""
        return self._pairs(only_sync=False)

    @cached_property
    def synchronous_pairs(self) -> frozenset[tuple[int, int]]:
        """Those between which commits wait."""
        return self._pairs(only_sync=True)

    def follows(self, pair: tuple[int, int], relation: str | None = None) -> bool:
        """Whether a replica, of a table if one is given, follows over the channel between two nodes."""
        primaries = self.cluster.primaries
        return any(
            c.prv is not None
            and c.stale_since is None
            and c.owner == pair[1]
            and relation in (None, c.relation)
            and c.part_name in primaries
            and primaries[c.part_name].owner == pair[0]
            for c in self.cluster.copies
        )

    def all_of(self, pair: tuple[int, int], relation: str) -> bool:
        """Whether the channel between two nodes carries nothing but one table, and those that are colocated
        with it and given up with it."""
        others = self.cluster.tables.keys() - {*self.cluster.group(relation)}
        return not any(self.follows(pair, other) for other in others)

    def _pairs(self, *, only_sync: bool) -> frozenset[tuple[int, int]]:
        cluster = self.cluster
        return frozenset(
            (cluster.primaries[c.part_name].owner, c.owner)
            for c in cluster.copies
            if c.prv is not None
            and c.stale_since is None
            and c.part_name in cluster.primaries
            and (not only_sync or self._waited_for(c))
        )

    def _waited_for(self, copy: Copy) -> bool:
        return self.cluster.tables[copy.relation].sync and copy.owner not in self.cluster.maintained


class Metadata:
    """The metadata of one leadership.

    Args:
        conn: a session on the lord's database, used by this alone.
    """

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._reading = asyncio.Lock()
        self._stale = asyncio.Event()
        self._changed = asyncio.Condition()
        self._known: Known | None = None
        #: Of what is known; an older one costs a reading too many, and no more.
        self._version: str | None = None

    @property
    def known(self) -> Known:
        """What was read last.

        Raises:
            RuntimeError: nothing was read yet.
        """
        if self._known is None:
            raise RuntimeError("the metadata have not been read yet")
        return self._known

    async def read(self) -> Known:
        """Reads afresh, whatever is known.

        Raises:
            psycopg.OperationalError: the lord's database cannot be reached.
        """
        async with self._reading:
            self._stale.clear()
            sql = queries("watch")
            # The version first: what changes in between is read, and perhaps once more.
            version = await value(self._conn, sql["glance"])
            cluster = await read_cluster(self._conn)
            rows = await (await self._conn.execute(sql["settings"])).fetchall()
            self._known = Known(cluster, Settings(dict(rows)))
            self._version = version
        async with self._changed:
            self._changed.notify_all()
        return self._known

    def outdated(self) -> None:
        """Something has changed: it is read soon."""
        self._stale.set()

    def compare(self, version: str) -> None:
        """Takes notice of the version that the lord's database has now."""
        if version != self._version:
            self._stale.set()

    async def run(self) -> None:
        """Reads whenever something has changed, until cancelled."""
        while True:
            await self._stale.wait()
            await self.read()
            await asyncio.sleep(PAUSE_S)

    async def change(self, since: Known, seconds: float) -> None:
        """Waits until something else is known, or for some seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(lambda: self._known is not since)
