"""When a channel confirms what it does not deliver.

A beat is a row that changes on the channel's source again and again. Once the subscriber has confirmed
more of the source's WAL than there was when the beat was written, the row must be there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from shardman.lord.policies.channels import Pair


@dataclass(frozen=True)
class Due:
    """A beat that was confirmed, and the instant since when that is known."""

    beat: int
    since: float


class Deliveries:
    """The beats through the channels of one leadership."""

    def __init__(self) -> None:
        #: The last beat of a source that is known to be in its WAL, and where the WAL ended then.
        self._sent: dict[int, tuple[int, int]] = {}
        #: The beat of the last look: its transaction ended after the look did.
        self._written: dict[int, int] = {}
        self._due: dict[Pair, Due] = {}
        self._lost: set[Pair] = set()

    def keep(self, pairs: Collection[Pair]) -> None:
        """Forgets all but these."""
        self._due = {pair: due for pair, due in self._due.items() if pair in pairs}
        self._lost &= set(pairs)

    def looked(
        self, src: int, beat: int, wal_end: int, confirmed: Mapping[int, int], now: float
    ) -> None:
        """What a source says.

        Args:
            beat: written during the look.
            wal_end: where the WAL ended before that.
            confirmed: how far each destination has confirmed to be.
            now: when the look had ended.
        """
        if src in self._written:
            self._sent[src] = (self._written[src], wal_end)
        self._written[src] = beat
        if src not in self._sent:
            return
        sent, end = self._sent[src]
        for dest, position in confirmed.items():
            pair = (src, dest)
            if position >= end and (pair not in self._due or self._due[pair].beat < sent):
                self._due[pair] = Due(sent, now)

    def arrived(self, dest: int, beats: Mapping[int, int], asked: float) -> None:
        """What a destination has.

        Args:
            beats: the last one of each source.
            asked: when the look began.
        """
        for pair, due in self._due.items():
            if pair[1] == dest and due.since <= asked:
                if beats.get(pair[0], 0) < due.beat:
                    self._lost.add(pair)
                else:
                    self._lost.discard(pair)

    def forget(self, pair: Pair) -> None:
        """It begins anew."""
        self._due.pop(pair, None)
        self._lost.discard(pair)

    def lost(self, pair: Pair) -> bool:
        """Whether a beat was confirmed over a channel and is not there."""
        return pair in self._lost
