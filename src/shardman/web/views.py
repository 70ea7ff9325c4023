"""What pages make of the status: pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from shardman.model.finding import Finding
from shardman.nodes.status import Row, Status
from shardman.web.rates import Rate

#: Partitions that a table's page lists, and the first page.
LISTED, HOTTEST = 100, 5
#: Commands that have failed and are shown on the first page: since when, and how many at most.
LATELY, FAILED = timedelta(hours=1), 5
#: What the shade of a map may tell.
SHADES = ("size", "writes", "reads")


def shade_of(asked: str | None) -> str:
    """One of `SHADES`; the first where something else was asked for."""
    return asked if asked in SHADES else SHADES[0]


def weights(now: Status, rates: Mapping[str, Rate], shade: str) -> dict[str, float]:
    """What the shade of each partition tells."""
    if shade == "size":
        return {p["part_name"]: float(p["bytes"] or 0) for p in now.partitions}
    return {p: r.written if shade == "writes" else r.read for p, r in rates.items()}


def problems_of(now: Status, node: int) -> list[Finding]:
    """Those that name a node."""
    named = re.compile(rf"\bnode {node}\b")
    return [f for f in now.problems if named.search(f.subject) or named.search(f.what)]


def largest(parts: Iterable[Row]) -> list[Row]:
    """The largest partitions."""
    return sorted(parts, key=lambda p: -(p["bytes"] or 0))[:LISTED]


def hottest(parts: Iterable[Row], rates: Mapping[str, Rate]) -> list[tuple[Row, Rate]]:
    """The partitions that are written or read, those with the most rows a second first."""
    busy = [(p, rates[p["part_name"]]) for p in parts if p["part_name"] in rates]
    busy = [(p, r) for p, r in busy if r.written or r.read]
    return sorted(busy, key=lambda each: -(each[1].written + each[1].read))


def failed_lately(history: Iterable[Row], now: datetime) -> list[Row]:
    """Commands that have failed a while ago at most, but for parts of others: somebody should know of them."""
    return [
        c
        for c in history
        if c["status"] == "failed"
        and c["parent"] is None
        and c["ended_at"] is not None
        and now - c["ended_at"] < LATELY
    ][:FAILED]
