"""Finds the table for which a channel stands still, or is about to, so that it alone leaves the channel.

Only the server's log says with which table an apply worker fails, and nobody may count on reading it. But what
the tables of both sides take can be compared, before anything fails; and once the worker has failed, the first
transaction that it has not applied can be read on the source.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from shardman import names
from shardman.lord.ask import NO_ANSWER, Askers
from shardman.lord.journal import LordLost
from shardman.lord.metadata import Metadata
from shardman.lord.policies.channels import Pair
from shardman.lord.policies.takes import Lasting
from shardman.model.takes import Takes, refusals
from shardman.sql.loader import queries
from shardman.tasks import all_of

#: Tables are compared after so many looks also where nothing seems to have changed.
COMPARE_EVERY = 60


class Culprits:
    """What is known of the tables behind the channels of one leadership."""

    def __init__(self, askers: Askers, metadata: Metadata) -> None:
        self._askers = askers
        self._metadata = metadata
        self._versions: dict[int, int | None] = {}
        self._looks: dict[int, int] = {}
        #: Nodes of which something has changed since their channels were compared.
        self._due: set[Pair] = set()
        self._lasting = Lasting()

    def keep(self, pairs: Collection[Pair]) -> None:
        """Forgets all but these."""
        self._due &= set(pairs)

    def looked(self, node: int, version: int | None) -> None:
        """What a node says of its catalog."""
        looks = self._looks[node] = self._looks.get(node, -1) + 1
        if looks % COMPARE_EVERY and self._versions.get(node) == version:
            return
        self._versions[node] = version
        self._due |= {pair for pair in self._metadata.known.pairs if node in pair}

    async def differing(self, pair: Pair, *, failing: bool) -> dict[str, str]:
        """The partitions whose replica could refuse what comes from the primary, and why.

        Args:
            failing: whether the worker fails already; otherwise the difference must last.
        """
        if not failing and pair not in self._due:
            return {}
        try:
            primaries, replicas = await all_of(*(self._takes(node, pair) for node in pair))
        except (*NO_ANSWER, LordLost):
            return {}
        found = refusals(primaries, replicas)
        lasting = self._lasting.lasts(pair, found, time.monotonic())
        if not found and not any(t.locked for t in (*primaries.values(), *replicas.values())):
            self._due.discard(pair)
        return found if failing else {part: found[part] for part in lasting}

    async def _takes(self, node: int, pair: Pair) -> dict[str, Takes]:
        rows = await self._askers.ask(node, queries("watch")["channel_takes"], *pair)
        return {
            part: Takes(version, frozenset(needs), frozenset(rules), locked)
            for parts, version, needs, rules, locked in rows
            for part in parts
        }

    async def pending(self, pair: Pair) -> list[str]:
        """The partitions to which the first transaction writes that the subscriber has not applied; none where
        it cannot be read."""
        name = names.channel(self._metadata.known.cluster.id, *pair)
        try:
            rows = await self._askers.ask(pair[1], queries("watch")["applied"], name)
            applied = str(rows[0][0])
            rows = await self._askers.ask(pair[0], queries("watch")["pending_parts"], name, applied)
        except (*NO_ANSWER, LordLost):
            return []
        return list(rows[0][0])
