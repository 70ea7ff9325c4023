"""What pages make of the status: pure."""

from __future__ import annotations

import re

from shardman.model.finding import Finding
from shardman.nodes.status import Row, Status

#: Partitions that a table's page lists.
LISTED = 100


def problems_of(now: Status, node: int) -> list[Finding]:
    """Those that name a node."""
    named = re.compile(rf"\bnode {node}\b")
    return [f for f in now.problems if named.search(f.subject) or named.search(f.what)]


def alone_on(now: Status, node: int) -> list[str]:
    """Primaries of a node that no replica could take over."""
    return [
        p["part_name"]
        for p in now.partitions
        if p["primary_on"] == node and not set(p["replicas_on"]) - set(p["stale_on"] or ())
    ]


def largest(now: Status, relation: str) -> list[Row]:
    """The largest partitions of a table."""
    parts = [p for p in now.partitions if p["relation"] == relation]
    return sorted(parts, key=lambda p: -(p["bytes"] or 0))[:LISTED]
