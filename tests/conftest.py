"""What all tests share."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Machines are shared: how long an example took says nothing about it.
settings.register_profile("ours", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ours")

#: What a test without the marker `server` gets for server programs: it fails when it wants some.
NO_SERVER = "/this test lacks the marker server"

#: The folders of tests that take longest: those begin first, so that nothing long is begun at the end.
LONGEST = ("crash", "upgrade", "answers", "cluster", "demo", "chaos", "faults", "copies", "schema")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {name: n for n, name in enumerate(LONGEST)}
    here = Path(__file__).parent
    items.sort(key=lambda item: rank.get(item.path.relative_to(here).parts[0], len(rank)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """The marker `server` tells the truth: who lacks it finds no server."""
    if item.get_closest_marker("server"):
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHARDMAN_PG_BIN", NO_SERVER)
        return (yield)
