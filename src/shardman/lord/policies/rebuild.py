"""When a table that lacks replicas gets them again, and when an old copy is brought up to date.

A node that was away only for a while has its chance to come back first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from shardman.model.cluster import Cluster
from shardman.model.replicas import changes

#: Where every node is there no node's return is waited for.
NOBODY_AWAY_S = 30.0
#: Old copies that could not be brought up to date are tried again so much later, then after twice that, up to
#: the last.
AGAIN_S, SELDOM_S = 10.0, 600.0
#: The same of shared tables: the first try may come a moment too early.
SHARED_AGAIN_S = 3.0
#: Of a node's old copies so many are tried first. While none comes through, one at a time: what is wrong with
#: one is wrong with the others, most often.
AT_FIRST = 4
#: A node whose copies have followed for so long is well.
WELL_S = 60.0


class OldCopy(NamedTuple):
    """A copy that does not follow its primary.

    Args:
        part: the partition.
        node: where the copy is.
        since: when it was left behind. One that was brought up to date and left behind again is another.
    """

    part: str
    node: int
    since: datetime


@dataclass
class _Tries:
    """What was tried for the old copies of a node.

    Args:
        at: nothing is tried before.
        pause: before the try after the next.
        former: what that was before the last try.
        tried: the last time.
        well: since when the node has no old copy.
        failing: how often its copies were given up again because what comes cannot be applied.
    """

    at: float
    pause: float = AGAIN_S
    former: float = AGAIN_S
    tried: set[OldCopy] = field(default_factory=set)
    well: float | None = None
    failing: int = 0

    def put_off(self, now: float) -> None:
        self.former = self.pause
        self.at, self.pause = now + self.pause, min(2 * self.pause, SELDOM_S)

    def chosen(self, copies: Collection[OldCopy], now: float) -> list[OldCopy]:
        """What is tried now of a node's old copies."""
        if self.well is not None:
            self.well, self.tried = None, set()
            # What fails every time holds clients up every time.
            if self.failing < 2:
                self.at, self.pause = now, AGAIN_S
        failed = self.tried.intersection(copies)
        if self.tried and len(failed) < len(self.tried):
            some = list(copies)  # Something came through.
            if not failed and self.failing < 2:
                self.at = now
        else:
            some = [c for c in copies if c in failed][:1] or list(copies)[:AT_FIRST]
        if now < self.at:
            return []
        self.tried = set(some)
        self.put_off(now)
        return some


class Levels:
    """Tables below their levels, and old copies, of one leadership."""

    def __init__(self) -> None:
        #: Since when a table has been below its level.
        self._short: dict[str, float] = {}
        #: How often the level of a table that is short was to be restored, and was not.
        self._vain: dict[str, int] = {}
        #: Since when every node has been there; None while one is not.
        self._complete: float | None = None
        self._tries: dict[int, _Tries] = {}

    def well(self, now: float) -> None:
        """Nothing is short, and no old copy is wanted."""
        self._short, self._vain, self._complete = {}, {}, None
        self.renewals((), now)

    def renewals(self, behind: Collection[OldCopy], now: float) -> list[OldCopy]:
        """Old copies to bring up to date now.

        Args:
            behind: those that can be, and are wanted.
        """
        nodes: defaultdict[int, list[OldCopy]] = defaultdict(list)
        for copy in behind:
            nodes[copy.node].append(copy)
        for node in [n for n in self._tries if n not in nodes]:
            tries = self._tries[node]
            tries.well = now if tries.well is None else tries.well
            if now - tries.well >= max(WELL_S, tries.pause):
                del self._tries[node]
        due: list[OldCopy] = []
        for node, copies in nodes.items():
            due += self._tries.setdefault(node, _Tries(now)).chosen(copies, now)
        return due

    def on_its_way(self, copy: OldCopy) -> None:
        """What was to be tried has not ended since the last time: it holds up no others, and has not failed."""
        if tries := self._tries.get(copy.node):
            tries.tried.discard(copy)
            if not tries.tried:
                tries.pause = tries.former

    def failing(self, node: int) -> None:
        """Copies on a node are given up, for what comes to them cannot be applied."""
        if tries := self._tries.get(node):
            tries.failing += 1

    def due(self, short: Collection[str], *, complete: bool, after: float, now: float) -> list[str]:
        """Tables whose level is to be restored now. Each is named again only when it has been short for
        long once more, then for twice as long: what has failed most often fails again. When the last node
        is back all are tried as if for the first time.

        Args:
            short: tables below their levels that could have more replicas.
            complete: whether every node is there, and clears nothing up.
            after: `rebuild_after`.
        """
        self._short = {relation: self._short.get(relation, now) for relation in short}
        if not complete:
            self._complete = None
        elif self._complete is None:
            self._complete, self._vain = now, {}
        self._vain = {r: n for r, n in self._vain.items() if r in self._short}
        found = [r for r in sorted(self._short) if self._long(r, after, now)]
        for relation in found:
            self._short[relation] = now
            self._vain[relation] = self._vain.get(relation, 0) + 1
        return found

    def _long(self, relation: str, after: float, now: float) -> bool:
        since, times = self._short[relation], 2.0 ** min(self._vain.get(relation, 0), 16)
        if now - since >= min(times * after, max(after, SELDOM_S)):
            return True
        away = min(times * NOBODY_AWAY_S, SELDOM_S)
        return self._complete is not None and now - max(since, self._complete) >= away


class Seldom:
    """Tables whose replicas on a node are given up again and again: each time holds up whoever's commits wait
    for the same channel, so their old copies are tried ever more seldom."""

    def __init__(self) -> None:
        #: How often, and when last.
        self._failed: dict[tuple[int, str], tuple[int, float]] = {}

    def failing(self, node: int, relation: str, now: float) -> None:
        """Replicas of a table on a node are given up, for what comes to them cannot be applied."""
        times, last = self._failed.get((node, relation), (0, now))
        again = now - last < 2 * _rest(times) + WELL_S
        self._failed[node, relation] = (times + 1 if again else 1, now)

    def holds(self, node: int, relation: str, now: float) -> bool:
        """Whether they are left alone for now."""
        times, last = self._failed.get((node, relation), (0, now))
        return now - last < _rest(times)


class SharedCopies:
    """Workers that lack copies of shared tables: those that died, and are back."""

    def __init__(self) -> None:
        #: When it is tried next, and how long the one after that is put off.
        self._tries: dict[tuple[str, frozenset[int]], tuple[float, float]] = {}

    def due(self, cluster: Cluster, there: Collection[int], now: float) -> list[tuple[str, int]]:
        """Shared tables to copy now, each behind those that it refers to, and a node whose copy is right.

        Args:
            there: the nodes that answer and take copies.
        """
        lacking = dict(lacking_shared(cluster, there))
        self._tries = {
            key: tried for key, tried in self._tries.items() if lacking.get(key[0]) == key[1]
        }
        found = []
        for relation, nodes in lacking.items():
            at, pause = self._tries.get((relation, nodes), (now, SHARED_AGAIN_S))
            if now >= at:
                self._tries[relation, nodes] = now + pause, min(2 * pause, SELDOM_S)
                found.append((relation, min(cluster.shared[relation].nodes)))
        return found


def lacking_shared(
    cluster: Cluster, there: Collection[int]
) -> Iterator[tuple[str, frozenset[int]]]:
    """Shared tables and the nodes that could have copies of them and have none."""
    for table in cluster.shared_in_order:
        nodes = frozenset(there) - frozenset(table.nodes)
        # A copy is made only where all that have one take part.
        if nodes and set(table.nodes) <= set(there):
            yield table.relation, nodes


def _rest(times: int) -> float:
    return 0.0 if times < 2 else min(AGAIN_S * 2.0**times, SELDOM_S)


def superfluous(cluster: Cluster, part: str, there: Collection[int]) -> bool:
    """Whether a partition of a table with a level has an old copy that nobody wants, for there are enough
    others: two have made them at the same time, or somebody one more than were asked for.

    Args:
        there: the nodes that answer.
    """
    level = cluster.tables[cluster.primary(part).relation].replevel
    if not level or len(cluster.replicas_of(part)) < level:
        return False
    return any(node in there for node in cluster.stale_replicas_of(part))


def behind(cluster: Cluster, there: Collection[int]) -> Iterator[OldCopy]:
    """Old copies that can be brought up to date and are wanted.

    Args:
        there: the nodes that answer and take copies.
    """
    for part, primary in sorted(cluster.primaries.items()):
        if not cluster.leads(part):
            continue
        stale = [
            OldCopy(part, c.owner, c.stale_since)
            for c in cluster.succession(part)[1:]
            if c.stale_since is not None and c.owner in there
        ]
        if stale and primary.owner in there:
            wanted = cluster.tables[primary.relation].replevel or 1
            missing = wanted - len(cluster.replicas_of(part))
            yield from stale[: max(missing, 0)]


def below_level(cluster: Cluster, there: Collection[int], alive: Collection[int]) -> set[str]:
    """Tables that have fewer replicas than asked for, and could have more; or old copies beyond those.

    Args:
        there: the nodes that answer and take copies.
        alive: the nodes that answer.
    """
    return {
        t.relation
        for t in cluster.tables.values()
        # Those that are colocated get theirs together.
        if cluster.group(t.relation)[0] == t.relation
        and t.replevel
        and any(
            c.add or (c.node in there and superfluous(cluster, c.part_name, {c.node}))
            for c in changes(cluster, t.relation, t.replevel, there, alive)
        )
    }
