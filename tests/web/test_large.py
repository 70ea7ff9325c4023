"""What a large cluster makes of the page; no server."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from shardman.nodes.status import NodeStatus, Status
from shardman.web.app import Web
from shardman.web.logins import Login
from shardman.web.looking import Seen
from shardman.web.maps import table_map

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def cluster(nodes: int, partitions: int) -> Status:
    parts: list[dict[str, Any]] = [
        {
            "relation": "acc",
            "part_name": f"acc_{n}",
            "primary_on": n % nodes + 1,
            "replicas_on": [(n + 1) % nodes + 1, (n + 2) % nodes + 1],
            "stale_on": [(n + 2) % nodes + 1] if n % 7 == 0 else None,
            "bytes": n * 1000,
            "rows": n,
            "compared": {},
        }
        for n in range(partitions)
    ]
    table = {"relation": "acc", "expr": "id", "partitions_count": partitions, "bytes": 1, "rows": 1}
    table |= {
        "min_replicas": 1,
        "max_replicas": 2,
        "replevel": 2,
        "sync": True,
        "stale_replicas": 3,
    }
    members = (
        NodeStatus(n, "worker" if n else "lord", f"host{n}:5432/app") for n in range(nodes + 1)
    )
    command = {"opts": "part_name=acc_5, dest=2", "status": "in progress"}
    return Status("abc", None, tuple(members), (table,), tuple(parts), (command,), ())


@pytest.mark.parametrize(("nodes", "partitions"), [(3, 12), (16, 1024)])
def test_each_copy_is_on_the_map_once(nodes: int, partitions: int) -> None:
    found = table_map(cluster(nodes, partitions), "acc")
    cells = [c for b in found.blocks for c in b.cells]
    assert len(cells) == 3 * partitions
    assert sum(c.kind == "primary" for c in cells) == partitions
    assert sum(c.kind == "stale" for c in cells) == len(range(0, partitions, 7))
    assert len({(c.part, c.node) for c in cells}) == len(cells)
    assert {c.part for c in cells if c.moving} == {"acc_5"}
    drawn = sum(
        b.path(kind, shade).count("M")
        for b in found.blocks
        for kind in ("primary", "replica", "stale")
        for shade in (1, 2, 3, 4)
    )
    assert drawn == len(cells)


@pytest.mark.parametrize(("nodes", "partitions"), [(3, 12), (16, 1024)])
def test_the_page_is_small(nodes: int, partitions: int) -> None:
    now = cluster(nodes, partitions)
    now = Status(**{**vars(now), "commands": ()})
    web = Web(["host=x"], secure=False)
    text = web.text(
        "overview.html",
        path="/",
        login=Login("me", ""),
        seen=Seen(now, [], True, NOW),
        maps=[table_map(now, "acc")],
        curves=web.history.drawn(),
        marks=[],
        live=True,
        stale=None,
    )
    assert 5_000 < len(text) < 120_000
