"""Gives partitions that lost a replica one again, and workers that were away their copies of shared tables.

An old copy that was left behind, for its primary changed or its node was away, is brought up to date
as soon as its node answers: little has to be copied. Otherwise `set_replevel` is remembered: a table
whose partitions have had fewer replicas than asked for during `rebuild_after` seconds, and could have
more, gets the command again. What is decided is in `policies.rebuild`; a new shardlord counts anew.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator

import structlog

from shardman.commands.base import Command
from shardman.commands.create_replica import CreateReplica
from shardman.commands.create_shared_table import CreateSharedTable
from shardman.commands.set_replevel import SetReplevel
from shardman.lord.metadata import Known, Metadata
from shardman.lord.policies.nodes import NodeHealth
from shardman.lord.policies.rebuild import (
    Levels,
    OldCopy,
    Seldom,
    SharedCopies,
    behind,
    below_level,
    lacking_shared,
    superfluous,
)
from shardman.lord.sessions import Sessions
from shardman.model.cluster import Cluster
from shardman.pg.connection import Connection
from shardman.sql.loader import queries
from shardman.tasks import pause

log = structlog.get_logger()

LOOK_EVERY_S = 2.0


class Rebuild:
    """Looks after the levels of one leadership.

    Args:
        nodes: what is known of the workers.
    """

    def __init__(self, sessions: Sessions, metadata: Metadata, nodes: NodeHealth) -> None:
        self._sessions = sessions
        self._metadata = metadata
        self._nodes = nodes
        self._levels = Levels()
        self._seldom = Seldom()
        self._shared = SharedCopies()
        #: Of what nothing was wanting: until something changes there is nothing to look for.
        self._well: tuple[Known, set[int]] | None = None

    def failing(self, node: int, relation: str | None = None) -> None:
        """Replicas on a node are given up, of all tables or of one, for what comes cannot be applied."""
        if relation is None:
            self._levels.failing(node)
        else:
            # What lies beside them is given up with them, and tried again with them.
            first = self._metadata.known.cluster.group(relation)[0]
            self._seldom.failing(node, first, time.monotonic())

    async def run(self) -> None:
        """Looks until cancelled."""
        lord = await self._sessions.lord()
        try:
            while True:
                await self._look(lord)
                await pause(LOOK_EVERY_S)
        finally:
            await lord.close()

    async def _look(self, lord: Connection) -> None:
        known, silent = self._metadata.known, self._nodes.silent()
        if (known, silent) == self._well:
            return
        cluster = known.cluster
        alive = {n.id for n in cluster.workers} - silent
        places = {n.id for n in cluster.places}
        if not _wanting(known, alive):
            # A node that clears up could only be one less to take copies.
            self._levels.well(time.monotonic())
            self._well = (known, silent)
            return
        self._well = None
        uncleared = await _uncleared(lord)
        there = places & alive - uncleared
        await self._share(lord, cluster, alive - uncleared)
        levelling = await _levelling(lord)
        await self._renew(
            lord, [c for c in self._tried(cluster, there) if not _goes(cluster, c, levelling)]
        )
        # A node that clears up is as good as away: it has its chance to offer its old copies first.
        due = self._levels.due(
            below_level(cluster, there, alive),
            complete=not silent and places <= there,
            after=known.settings.rebuild_after,
            now=time.monotonic(),
        )
        for relation in due:
            await _submit(lord, SetReplevel(relation, cluster.tables[relation].replevel))

    def _tried(self, cluster: Cluster, there: Collection[int]) -> Iterator[OldCopy]:
        now = time.monotonic()
        for copy in behind(cluster, there):
            # Of partitions that go together it names the first table's.
            if not self._seldom.holds(copy.node, cluster.primaries[copy.part].relation, now):
                yield copy

    async def _share(self, lord: Connection, cluster: Cluster, there: Collection[int]) -> None:
        if next(lacking_shared(cluster, there), None) is None or await _is_sharing(lord):
            return
        for relation, source in self._shared.due(cluster, there, time.monotonic()):
            await _submit(lord, CreateSharedTable(relation, source))

    async def _renew(self, lord: Connection, copies: list[OldCopy]) -> None:
        for copy in self._levels.renewals(copies, time.monotonic()):
            if not await _submit(lord, CreateReplica(copy.part, copy.node)):
                self._levels.on_its_way(copy)


def _wanting(known: Known, alive: set[int]) -> bool:
    """Whether some partition has fewer replicas than asked for, an old copy that is wanted, or one too many."""
    cluster = known.cluster
    if any(
        len(cluster.replicas_of(part)) < cluster.tables[primary.relation].replevel
        for part, primary in cluster.primaries.items()
        if cluster.tables[primary.relation].replevel
    ):
        return True
    if next(lacking_shared(cluster, alive), None) is not None:
        return True
    if any(superfluous(cluster, part, alive) for part in cluster.primaries):
        return True
    return next(behind(cluster, alive), None) is not None


async def _uncleared(lord: Connection) -> set[int]:
    """Nodes that take no copy yet."""
    cur = await lord.execute(queries("watch")["uncleared"])
    return {int(row[0]) for row in await cur.fetchall()}


async def _levelling(lord: Connection) -> set[str]:
    """Tables to whose replicas a command sees that is under way."""
    cur = await lord.execute(queries("watch")["levelling"])
    return {str(row[0]) for row in await cur.fetchall()}


def _goes(cluster: Cluster, copy: OldCopy, levelling: set[str]) -> bool:
    """Whether an old copy is brought up to date by such a command, or replaced: done besides, there would be
    one too many."""
    return not levelling.isdisjoint(cluster.group(cluster.primaries[copy.part].relation))


async def _is_sharing(lord: Connection) -> bool:
    """Whether a command is under way that makes copies of shared tables itself, or drops them."""
    cur = await lord.execute(queries("watch")["sharing"])
    row = await cur.fetchone()
    return row is not None and bool(row[0])


async def _submit(lord: Connection, command: Command) -> bool:
    """Unless the same is on its way; whether it is not."""
    options = command.options()
    cur = await lord.execute(
        "select shardman.accept_once(%s, %s)", (command.name, json.dumps(options))
    )
    row = await cur.fetchone()
    if row is None or row[0] is None:
        return False
    log.info("rebuild", cmd=row[0], type=command.name, options=options)
    return True
