"""When the standby names of a server are to be looked at closely, and when the lord's change."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

#: What was right all the time is looked at closely so often nevertheless.
CLOSELY_EVERY_S = 60.0


@dataclass
class _Seen:
    text: str
    at: float


@dataclass
class WorkerStandbyNames:
    """Whether a worker's setting needs more than a glance.

    To put it right takes locks and some ten statements. What was right at the last close look, and is
    wanted and written as it was then, is right.
    """

    _seen: dict[int, _Seen] = field(default_factory=dict)
    _wanted: dict[int, tuple[str, ...]] = field(default_factory=dict)

    def keep(self, nodes: Collection[int]) -> None:
        """Forgets all but these."""
        self._seen = {n: seen for n, seen in self._seen.items() if n in nodes}

    def needs_look(self, node: int, wanted: Sequence[str], text: str, now: float) -> bool:
        """Whether the setting must be looked at closely.

        Args:
            wanted: the channels of this node that its commits are to wait for.
            text: the setting as it is now.
        """
        seen = self._seen.get(node)
        return (
            seen is None
            or seen.text != text
            or self._wanted.get(node) != tuple(wanted)
            or now - seen.at >= CLOSELY_EVERY_S
        )

    def was_right(self, node: int, wanted: Sequence[str], text: str, now: float) -> None:
        """After a close look.

        Args:
            text: what was seen to be right, and not what was read a moment later: that may be wrong again.
        """
        self._seen[node] = _Seen(text, now)
        self._wanted[node] = tuple(wanted)


@dataclass(frozen=True)
class Answer:
    """What becomes of the metadata's part in the lord's standby names.

    Args:
        copies: what commits are to wait for; None: it stays as it is.
        warn: none of the workers streams, and commits do not wait any more. Said once.
    """

    copies: tuple[str, ...] | None
    warn: bool = False


class LordStandbyNames:
    """Commits in the lord's database wait until a worker has them, as long as one streams, and not for
    ever for workers that do not."""

    def __init__(self) -> None:
        #: Since when no worker has streamed.
        self._alone: float | None = None
        self._warned = False

    def decide(
        self, *, sync: bool, streaming: Sequence[str], workers: int, after: float, now: float
    ) -> Answer:
        """What commits are to wait for.

        Args:
            sync: the setting `lord_sync`.
            streaming: subscriptions to the metadata of workers that answer.
            workers: how many there are.
            after: `failover_after`: for so long a worker may be on its way back.
        """
        if not sync:
            return Answer(())
        if streaming:
            self._alone, self._warned = None, False
            return Answer(tuple(streaming))
        self._alone = now if self._alone is None else self._alone
        if now - self._alone < after:
            return Answer(None)
        warn = bool(workers) and not self._warned
        self._warned = self._warned or warn
        return Answer((), warn)
