"""Half a minute of what `make soak` does for ten."""

from __future__ import annotations

import os

import pytest

from shardman.testing.soak import soak


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("SHARDMAN_LONG"), reason="by make crash and make soak")
@pytest.mark.timeout(300)
def test_nothing_is_lost_or_doubled_in_half_a_minute_of_chaos() -> None:
    report = soak(seconds=25, seed=1, every=4)
    assert report.wrong == [], "\n".join(report.lines())
    assert report.faults
    assert report.acknowledged > 100
