"""Half a minute of what `make soak` does for ten."""

from __future__ import annotations

import pytest

from shardman.testing.soak import soak


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nothing_is_lost_or_doubled_in_half_a_minute_of_chaos() -> None:
    report = soak(seconds=25, seed=3, every=3, replevel=1)
    assert report.wrong == [], "\n".join(report.lines())
    assert sum(report.faults.values()) >= 2
    assert report.acknowledged > 100
