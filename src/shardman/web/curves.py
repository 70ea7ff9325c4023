"""The last hour as curves: a few sums of the metrics, kept in memory, bounded."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import structlog

from shardman.metrics.node import Value
from shardman.metrics.sampler import Sampler

log = structlog.get_logger()

EVERY_S = 5.0
KEPT = 720
#: Seconds; with fewer samples there is room for more.
SHORTEST_S = 300.0
WIDTH, HEIGHT = 240, 48


@dataclass(frozen=True)
class Curve:
    """What is drawn.

    Args:
        pick: of the values of one sample.
        rate: the values count up, so their difference by second is shown.
        unit: bytes, s, or nothing.
    """

    title: str
    pick: Callable[[Iterable[Value]], float]
    rate: bool = False
    unit: str = ""


def _sum(name: str, **labels: str) -> Callable[[Iterable[Value]], float]:
    def pick(values: Iterable[Value]) -> float:
        return sum(v.value for v in values if v.name == name and labels.items() <= v.labels.items())

    return pick


def _largest(name: str) -> Callable[[Iterable[Value]], float]:
    return lambda values: max((v.value for v in values if v.name == name), default=0.0)


def _writes(values: Iterable[Value]) -> float:
    return sum(
        v.value
        for v in values
        if v.name == "table_rows" and v.labels["operation"] in ("inserted", "updated", "deleted")
    )


CURVES = (
    Curve("rows of sharded tables written a second", _writes, rate=True),
    Curve("commits that wait for replicas", _sum("node_commits_waiting")),
    Curve("the longest lag of a replica", _largest("channel_lag_bytes"), unit="bytes"),
    Curve("WAL written a second", _sum("node_wal_bytes"), rate=True, unit="bytes"),
    Curve("sessions", _sum("node_sessions")),
    Curve("nodes that answer", _sum("node_up")),
)


@dataclass
class History:
    """What was sampled.

    Args:
        sampler: asks as the role that the page was started with.
    """

    sampler: Sampler
    at: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    values: list[deque[float | None]] = field(
        default_factory=lambda: [deque(maxlen=KEPT) for _ in CURVES]
    )
    failovers: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    #: How many samples there were.
    number: int = 0
    _last: list[float | None] = field(default_factory=lambda: [None] * len(CURVES))
    _failed: float | None = None

    async def run(self) -> None:
        """Samples until cancelled."""
        while True:
            try:
                self.take(time.time(), await self.sampler.sample())
            except Exception as error:  # noqa: BLE001 - the page goes on without its curves
                log.warning("no sample", error=str(error))
            await asyncio.sleep(EVERY_S)

    def take(self, now: float, values: Sequence[Value]) -> None:
        """One sample more. A counter that went down, for its server was started anew, gives a gap."""
        before = self.at[-1] if self.at else None
        self.at.append(now)
        self.number += 1
        for n, curve in enumerate(CURVES):
            value, last = curve.pick(values), self._last[n]
            self._last[n] = value
            if not curve.rate:
                self.values[n].append(value)
            elif last is None or before is None or value < last or now <= before:
                self.values[n].append(None)
            else:
                self.values[n].append((value - last) / (now - before))
        failed = _sum("failovers")(values)
        if self._failed is not None and failed > self._failed:
            self.failovers.append(now)
        self._failed = failed

    def marks(self) -> list[float]:
        """Where on the axis failovers ended."""
        return [] if not self.at else [self._x(t) for t in self.failovers if t >= self.at[0]]

    def _x(self, at: float) -> float:
        return round(WIDTH - (self.at[-1] - at) * WIDTH / self.shown(), 1)

    def shown(self) -> float:
        """Seconds from the left to the right: as long as there are samples, some minutes at least."""
        return max(SHORTEST_S, self.at[-1] - self.at[0]) if self.at else SHORTEST_S

    def drawn(self) -> list[Drawn]:
        """All curves."""
        return [self._draw(n, curve) for n, curve in enumerate(CURVES)]

    def _draw(self, n: int, curve: Curve) -> Drawn:
        values = self.values[n]
        top = max((v for v in values if v is not None), default=0.0)
        path, pen = [], "M"
        for at, value in _thinned(list(zip(self.at, values, strict=True))):
            if value is None:
                pen = "M"
                continue
            y = HEIGHT - 1 - (value / top if top else 0.0) * (HEIGHT - 2)
            path.append(f"{pen}{self._x(at):g} {y:.1f}")
            pen = "L"
        latest = next((v for v in reversed(values) if v is not None), None)
        return Drawn(curve.title, curve.unit, "".join(path), latest, top)


def _thinned(points: list[tuple[float, float | None]]) -> list[tuple[float, float | None]]:
    """Of points that would be drawn above each other the highest."""
    step = -(-len(points) // WIDTH) or 1
    return [
        max(points[at : at + step], key=lambda p: -1.0 if p[1] is None else p[1])
        for at in range(0, len(points), step)
    ]


@dataclass(frozen=True)
class Drawn:
    """A curve as an SVG path, its last value and its largest."""

    title: str
    unit: str
    path: str
    latest: float | None
    top: float
