"""A fault of the shardlord's own ends a leadership, not the shardlord."""

from __future__ import annotations

import asyncio

import pytest

from shardman.lord import leadership
from shardman.lord.daemon import Office
from shardman.lord.in_doubt import Doubts
from shardman.lord.journal import Journal
from shardman.lord.leadership import Leaderships
from shardman.lord.metadata import Metadata
from shardman.lord.sessions import Sessions
from shardman.testing.plugin import ClusterFactory


class Faulty(Office):
    """Meets what nobody foresaw; the first of them does."""

    made = 0

    def __init__(
        self, sessions: Sessions, journal: Journal, metadata: Metadata, doubts: Doubts
    ) -> None:
        super().__init__(sessions, journal, metadata, doubts)
        type(self).made += 1

    async def serve(self) -> None:
        if self.made == 1:
            raise TypeError("a fault")
        await super().serve()


def test_the_next_leadership_acts(
    cluster_factory: ClusterFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = cluster_factory(workers=1)
    cluster.stop_lord()
    monkeypatch.setattr(leadership, "FAULT_S", 0.1)

    async def act() -> None:
        leaderships = Leaderships(cluster.lord_dsn, Faulty)
        acting = asyncio.create_task(leaderships.run())
        cmd = cluster.submit("select shardman.set_zone(1, 'a')")
        await asyncio.to_thread(cluster.wait, cmd)
        leaderships.stop()
        await acting

    asyncio.run(act())
    assert Faulty.made == 2
    assert cluster.value(0, "select zone from shardman.nodes where id = 1") == "a"
