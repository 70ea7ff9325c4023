"""Which workers are silent, which are dead, and when nothing is done about it.

A node that has not answered for `failover_after` seconds is dead for the shardlord, one at a time. When
most nodes are silent at once it is the shardlord's own network that is suspected.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from shardman.model.cluster import Cluster
from shardman.model.succession import succeed

#: After a failover that failed the next is tried so much later, in seconds, then after twice that, up to
#: the last. When any node answers again it is tried at once.
AGAIN_S = 3.0
SELDOM_S = 60.0
#: When this part of the workers is silent at once nothing is done.
TOO_MANY = 2 / 3


@dataclass(frozen=True)
class Verdict:
    """What is to be done now.

    Args:
        suspicion: why nothing is done; None when nothing is suspected.
        dead: whoever waits for an answer of one has waited long enough.
        candidates: of these, those that have something that could be taken over. None while a failover
            is under way: each changes who is left to take over.
        alive: who answers, and may be asked whether it hears a candidate.
    """

    suspicion: str | None = None
    dead: tuple[int, ...] = ()
    candidates: tuple[int, ...] = ()
    alive: frozenset[int] = frozenset()


class NodeHealth:
    """The health of the workers, as far as the shardlord can tell by asking them."""

    def __init__(self) -> None:
        self._workers: frozenset[int] = frozenset()
        #: When a silent node was first asked in vain.
        self._since: dict[int, float] = {}
        #: Why a node that answers is of no use.
        self._sick: dict[int, str] = {}
        #: Nodes whose absence was planned, and whose time is over.
        self._overdue: frozenset[int] = frozenset()
        #: Nodes that answer again, and of which nobody was told yet.
        self._returned: set[int] = set()
        self._suspicion: str | None = None
        self._replaced: int | None = None
        #: Until when the next failover of a node is put off, and how long the one after it.
        self._again: dict[int, tuple[float, float]] = {}

    def silent(self) -> set[int]:
        """The workers that do not answer now."""
        return set(self._since)

    def returned(self) -> set[int]:
        """The workers that have answered again since this was asked last: who looks now and then does not see
        a short absence."""
        returned, self._returned = self._returned, set()
        return returned

    @property
    def calm(self) -> bool:
        """Whether every worker answers and nothing is suspected: there is nothing to judge."""
        return not self._since and self._suspicion is None

    @property
    def replaced(self) -> int | None:
        """The node whose failover is under way."""
        return self._replaced

    def keep(self, workers: Collection[int]) -> None:
        """Forgets all but these."""
        self._workers = frozenset(workers)
        self._since = {n: since for n, since in self._since.items() if n in self._workers}

    def answered(self, node: int) -> None:
        """A node has answered."""
        self._sick.pop(node, None)
        if self._since.pop(node, None) is not None:
            self._again.clear()
            self._returned.add(node)

    def unanswered(self, node: int, asked: float) -> None:
        """A node was asked, then, and has not answered. Of one that nobody watches nothing is noted."""
        if node in self._workers:
            self._since.setdefault(node, asked)

    def cannot_write(self, node: int, asked: float, why: str) -> None:
        """A node answers, and whoever writes there fails or hangs: it is as good as silent."""
        self.unanswered(node, asked)
        self._sick[node] = why

    def is_sick(self, node: int) -> bool:
        """Whether a node answered, at the last look that proved it, that it cannot write."""
        return node in self._sick

    def overdue(self, nodes: Collection[int]) -> None:
        """The time of these, whose absence was planned, is over."""
        self._overdue = frozenset(nodes)

    def judge(self, cluster: Cluster, after: float, now: float) -> Verdict:
        """What is to be done.

        Args:
            cluster: who has what.
            after: `failover_after`.
        """
        alive = self._workers - self._since.keys()
        dead = sorted(n for n, since in self._since.items() if now - since >= after)
        # Those who have nothing any more that somebody could take over say nothing about the network, nor do
        # those whose absence is planned.
        over = {n for n in dead if not _has_heirs(cluster, n, alive)}
        over |= cluster.maintained - self._overdue
        if self._doubts(self._since.keys() - over, len(self._workers - over), now):
            return Verdict(self._suspicion, alive=alive)
        free = self._replaced is None
        due = {n for n in dead if now >= self._again.get(n, (now, 0))[0]}
        candidates = tuple(n for n in dead if n in due - over) if free else ()
        return Verdict(None, tuple(dead), candidates, alive)

    def _doubts(self, silent: Collection[int], workers: int, now: float) -> bool:
        """Whether so many nodes are silent at once that the fault is more likely here, or were until
        now: they come back one after the other, and each gets its time anew."""
        suspicious = len(silent) >= max(2, TOO_MANY * workers)
        over = self._suspicion is not None and not suspicious
        if over:
            self._since = dict.fromkeys(self._since, now)
        nodes = ", ".join(map(str, sorted(silent)))
        self._suspicion = f"most workers are silent at once: {nodes}" if suspicious else None
        return suspicious or over

    def begin(self, node: int, alive: Collection[int], now: float) -> str:
        """A failover of a dead node begins; returns the reason, for people.

        Raises:
            RuntimeError: another one is under way.
        """
        if self._replaced is not None:
            raise RuntimeError(f"node {self._replaced} is being replaced")
        self._replaced = node
        silent = now - self._since.get(node, now)
        if (why := self._sick.get(node)) is not None:
            return f"cannot write for {silent:.1f} s: {why}"
        asked = ", ".join(str(n) for n in sorted(alive))
        heard = f"nodes asked, which do not hear it either: {asked}" if asked else "nobody to ask"
        return f"silent for {silent:.1f} s; {heard}"

    def ended(self, node: int, now: float) -> None:
        """The failover of a node has ended. Whether it succeeded is seen in the metadata: a node that
        still has something that could be taken over is a candidate again in a while; one that answered
        meanwhile, and is silent again, gets its whole time."""
        self._replaced = None
        if node in self._since:
            _, pause = self._again.get(node, (now, AGAIN_S))
            self._again[node] = now + pause, min(SELDOM_S, 2 * pause)


def _has_heirs(cluster: Cluster, node: int, alive: Collection[int]) -> bool:
    return succeed(cluster, node, alive).changes
