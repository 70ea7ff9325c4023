"""What a large cluster makes of the page; no server."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from shardman.metrics.sampler import Sampler
from shardman.nodes.status import NodeStatus, Status
from shardman.web.curves import History
from shardman.web.looking import Seen
from shardman.web.maps import table_map, table_maps
from shardman.web.rates import Rate
from shardman.web.rendering import Renderer
from shardman.web.stopping import stopping
from shardman.web.views import hottest, weights

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def cluster(nodes: int, partitions: int, tables: int = 1) -> Status:
    parts: list[dict[str, Any]] = [
        {
            "relation": relation,
            "part_name": f"{relation}_{n}",
            "primary_on": n % nodes + 1,
            "replicas_on": [(n + 1) % nodes + 1, (n + 2) % nodes + 1],
            "stale_on": [(n + 2) % nodes + 1] if n % 7 == 0 else None,
            "bytes": n * 1000,
            "rows": n,
            "compared": {},
        }
        for relation in ("acc", *(f"acc{n}" for n in range(1, tables)))
        for n in range(partitions)
    ]
    table = {"expr": "id", "partitions_count": partitions, "bytes": 1, "rows": 1}
    table |= {
        "min_replicas": 1,
        "max_replicas": 2,
        "replevel": 2,
        "sync": True,
        "stale_replicas": 3,
        "unevenness": 0,
    }
    members = (
        NodeStatus(n, "worker" if n else "lord", f"host{n}:5432/app") for n in range(nodes + 1)
    )
    command = {"opts": "part_name=acc_5, dest=2", "status": "in progress"}
    names = dict.fromkeys(p["relation"] for p in parts)
    all_ = tuple({"relation": name, **table} for name in names)
    return Status("abc", None, tuple(members), all_, tuple(parts), (command,), ())


@pytest.mark.parametrize(("nodes", "partitions"), [(3, 12), (16, 1024)])
def test_each_copy_is_on_the_map_once(nodes: int, partitions: int) -> None:
    found = table_map(cluster(nodes, partitions), "acc", {})
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


def test_what_the_shade_tells() -> None:
    now = cluster(3, 12)
    rates = {"acc_3": Rate(100.0, 0.0), "acc_4": Rate(30.0, 7.0), "acc_5": Rate(0.0, 0.0)}
    shades = {
        c.part: c.shade
        for b in table_map(now, "acc", weights(now, rates, "writes")).blocks
        for c in b.cells
    }
    assert (shades["acc_3"], shades["acc_4"], shades["acc_5"], shades["acc_6"]) == (4, 2, 1, 1)
    assert [p["part_name"] for p, _ in hottest(now.partitions, rates)] == ["acc_3", "acc_4"]


#: One table or many: maps that would make the page large are left out, or simpler.
SIZES = [(3, 12, 1), (16, 1024, 1), (16, 256, 1), (16, 100, 1), (16, 64, 16), (16, 1024, 20)]


@pytest.mark.parametrize(("nodes", "partitions", "tables"), SIZES)
def test_the_pages_are_small(nodes: int, partitions: int, tables: int) -> None:
    now = cluster(nodes, partitions, tables)
    now = Status(**{**vars(now), "commands": ()})
    rates = {p["part_name"]: Rate(123.4, 56789.0) for p in now.partitions}
    history = History(Sampler("host=x"))
    for n in range(720):
        history.take(n * 5.0, [])
    values = {
        "live": True,
        "stale": None,
        "address": "/",
        "seen": Seen(now, [], True, NOW, rates),
        "shade": "size",
        "hottest": hottest(now.partitions, rates)[:100],
        "failed": [],
    }
    overview = {
        "maps": table_maps(now, weights(now, rates, "size")),
        "stops": {n.id: stopping(now, n.id) for n in now.nodes},
        "curves": history.drawn(),
        "marks": [],
        "minutes": 60,
    }
    table = {
        "table": now.tables[0],
        "largest": list(now.partitions)[:100],
        "map": table_map(now, "acc", weights(now, rates, "size")),
    }
    renderer = Renderer()
    for name, more in (("overview.html", overview), ("table.html", table)):
        part = renderer.part(name, values | more)
        page = renderer.page(part, login=None, path="/")
        size = len(page.encode())
        assert 3_000 < size < 200_000 - 70_000, (name, size)  # what is vendored is 70 kB
