"""When a channel is broken although both of its nodes live.

Slow is not broken: while either of its processes gets on with what has not been confirmed, it is waited for.
One that fails again and again gets on with nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

#: Publisher and subscriber.
Pair = tuple[int, int]

#: Processor time of a process that is at work, in ticks of 10 ms per second. One that only answers takes less.
WORKS_TICKS = 3.0
#: Signs are looked for when nothing was confirmed for so long, in seconds.
SIGNS_AFTER_S = 1.0


@dataclass(frozen=True)
class Signs:
    """What is seen of a channel's processes at one instant.

    Args:
        sent: how far the publisher has sent.
        received: how far the subscriber has come by its own word.
        heard: when it heard its publisher last, by its clock.
        waits: what each waits for, publisher and subscriber.
        ticks: the processor time of each; None where the system does not tell.
        said: what is plainly wrong, in words.
    """

    sent: int = 0
    received: int = 0
    heard: float | None = None
    waits: tuple[str | None, str | None] = (None, None)
    ticks: tuple[int | None, int | None] = (None, None)
    said: tuple[str, ...] = ()


@dataclass
class Behind:
    """A position that has not been confirmed.

    Args:
        position: in the publisher's WAL.
        since: the look at which it was the end of the WAL.
        still: the last look at which it was not confirmed.
        failures: how often the subscriber had failed until then.
        errors: how many errors its worker had reported until then.
        alive: when the channel was last seen to get on.
    """

    position: int
    since: float
    still: float
    failures: int
    alive: float
    errors: int = 0
    seen: list[tuple[float, Signs]] = field(default_factory=list)

    def notice(self, signs: Signs, now: float) -> None:
        """Compares signs with those of the look before."""
        if self.seen and self._gets_on(*self.seen[-1], signs, now):
            self.alive = now
        self.seen = [*self.seen[-1:], (now, signs)]

    def _gets_on(self, then: float, before: Signs, signs: Signs, now: float) -> bool:
        if signs.received >= self.position:
            return False  # It has come so far, and is not heard.
        works = [_works(*pair, now - then) for pair in zip(before.ticks, signs.ticks, strict=True)]
        # What it sends that is newer says nothing of this.
        sending = signs.sent < self.position
        return (
            signs.heard != before.heard
            or min(signs.sent, self.position) > min(before.sent, self.position)
            or works[1]
            or signs.waits[1] != before.waits[1]
            or (sending and (works[0] or signs.waits[0] != before.waits[0]))
        )


def _works(before: int | None, ticks: int | None, seconds: float) -> bool:
    return before is not None and ticks is not None and ticks - before >= WORKS_TICKS * seconds


@dataclass
class _Worker:
    errors: int
    pid: int | None
    failures: int = 0


class ChannelHealth:
    """What was seen of each channel between whose nodes commits wait."""

    def __init__(self) -> None:
        self._behind: dict[Pair, Behind] = {}
        self._workers: dict[Pair, _Worker] = {}

    def keep(self, pairs: Collection[Pair]) -> None:
        """Forgets all but these."""
        self._behind = {pair: b for pair, b in self._behind.items() if pair in pairs}
        self._workers = {pair: w for pair, w in self._workers.items() if pair in pairs}

    def looked(self, pair: Pair, confirmed: int, end: int, now: float) -> None:
        """What the publisher says.

        Args:
            confirmed: how far the subscriber has confirmed to be.
            end: where the WAL ends. What is there now must be confirmed some time later.
        """
        behind = self._behind.get(pair)
        if behind is None or confirmed >= behind.position:
            self._behind[pair] = Behind(
                end, now, now, self._failures(pair), now, self._errors(pair)
            )
        else:
            behind.still = now

    def applies(self, pair: Pair, errors: int, pid: int | None) -> None:
        """What the subscriber says of its worker: how many errors it has reported, and its process. One that
        was ended from outside reports none."""
        worker = self._workers.get(pair)
        if worker is None:
            self._workers[pair] = _Worker(errors, pid)
            return
        if errors > worker.errors:
            worker.failures += errors - worker.errors
        elif worker.pid is not None and pid != worker.pid:
            worker.failures += 1
        worker.errors, worker.pid = errors, pid

    def fails(self, pair: Pair) -> bool:
        """Whether the subscriber has failed with what has not been confirmed."""
        behind = self._behind.get(pair)
        return behind is not None and self._failures(pair) > behind.failures

    def errs(self, pair: Pair) -> bool:
        """Whether its worker has reported an error with what has not been confirmed for long."""
        behind = self._behind.get(pair)
        return (
            behind is not None
            and behind.still - behind.since >= SIGNS_AFTER_S
            and self._errors(pair) > behind.errors
        )

    def _errors(self, pair: Pair) -> int:
        worker = self._workers.get(pair)
        return worker.errors if worker else 0

    def _failures(self, pair: Pair) -> int:
        worker = self._workers.get(pair)
        return worker.failures if worker else 0

    def unknown(self, pair: Pair) -> None:
        """The publisher does not answer: then it is the node that is watched, not the channel."""
        self._behind.pop(pair, None)

    def late(self) -> list[Pair]:
        """Channels over which nothing was confirmed for so long that signs of life are to be looked for."""
        return [p for p, b in self._behind.items() if b.still - b.since >= SIGNS_AFTER_S]

    def signs(self, pair: Pair, signs: Signs, now: float) -> None:
        """What was seen of a channel that is late."""
        if (behind := self._behind.get(pair)) is not None:
            behind.notice(signs, now)

    def broken(self, pair: Pair, after: float) -> str | None:
        """Whether a channel is broken.

        Args:
            after: for how long nothing may be confirmed, without a sign of life, in seconds.

        Returns:
            The reason, for people; None for one that is only slow.
        """
        behind = self._behind.get(pair)
        if behind is None or (silent := behind.still - behind.since) < after:
            return None
        if failed := self._failures(pair) - behind.failures:
            times = f"{failed} time{'s' * (failed > 1)}"
            return (
                f"nothing confirmed for {silent:.1f} s: its worker has failed {times} in between, the log of"
                f" the server of node {pair[1]} says why"
            )
        if len(behind.seen) < 2 or behind.seen[-1][0] - behind.alive < after:
            return None
        said = "; ".join(behind.seen[-1][1].said)
        return f"nothing confirmed for {silent:.1f} s though both nodes answer" + (
            f": {said}" if said else ""
        )
