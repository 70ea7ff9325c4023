"""When so much WAL is kept for a silent node that its replicas are given up."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Over:
    """A slot that keeps too much.

    Args:
        kept: how much, for people.
        to: the node whose replicas could be given up for it; None when there is none.
    """

    node: int
    slot: str
    kept: str
    to: int | None


class RetentionLimit:
    """Slots over `wal_keep_limit`, and since when."""

    def __init__(self) -> None:
        #: Since when a slot has kept too much for a node that is silent.
        self._since: dict[tuple[int, int], float] = {}
        self._told: set[tuple[int, str]] = set()

    def news(self, found: Iterable[Over]) -> Iterator[Over]:
        """Those that were not over the limit at the look before."""
        told, self._told = self._told, set()
        for over in found:
            if (over.node, over.slot) not in told:
                yield over
            self._told.add((over.node, over.slot))

    def to_give_up(
        self, found: Iterable[Over], silent: Collection[int], after: float, now: float
    ) -> list[Over]:
        """Those that have kept too much for a node that was silent all the time, for `after` seconds.
        Each is named once; where giving up fails it has its time again."""
        kept = {(o.node, o.to): o for o in found if o.to is not None and o.to in silent}
        self._since = {pair: self._since.get(pair, now) for pair in kept}
        due = [pair for pair, since in self._since.items() if now - since >= after]
        for pair in due:
            del self._since[pair]
        return [kept[pair] for pair in due]
