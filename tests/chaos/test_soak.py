"""A little of what `make soak` does for ten."""

from __future__ import annotations

import pytest

from shardman.testing.soak import soak

pytestmark = pytest.mark.server


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nothing_is_lost_or_doubled_in_a_little_chaos() -> None:
    brief = "(killed|damaged|hangs|full)$"
    report = soak(seconds=12, seed=3, every=3, replevel=1, partitions=4, only=brief)
    assert report.wrong == [], "\n".join(report.lines())
    assert report.events
    assert report.acknowledged > 100
