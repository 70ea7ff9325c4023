"""When WAL that is kept for a silent node costs it its replicas."""

from __future__ import annotations

import pytest

from lord.policies.clusters import Clock
from shardman.lord.policies.retention import Over, RetentionLimit

AFTER = 5.0
OVER = Over(1, "shardman_abcdef_1_2", "12 GB", 2)
METADATA = Over(0, "shardman_meta_abcdef_2", "12 GB", None)


def test_it_is_told_once_each_time() -> None:
    limit = RetentionLimit()
    assert list(limit.news([OVER, METADATA])) == [OVER, METADATA]
    assert list(limit.news([OVER, METADATA])) == []
    assert list(limit.news([METADATA])) == []
    assert list(limit.news([OVER, METADATA])) == [OVER]


@pytest.mark.parametrize(
    ("over", "silent", "given_up"),
    [
        (OVER, {2}, [OVER]),
        (OVER, set(), []),  # its receiver lives, and may catch up
        (OVER, {1, 3}, []),
        (METADATA, {2}, []),  # no replicas hang on it
    ],
)
def test_what_is_given_up(over: Over, silent: set[int], given_up: list[Over]) -> None:
    clock, limit = Clock(), RetentionLimit()
    assert limit.to_give_up([over], silent, AFTER, clock.now) == []
    assert limit.to_give_up([over], silent, AFTER, clock.wait(AFTER - 0.1)) == []
    assert limit.to_give_up([over], silent, AFTER, clock.wait(0.1)) == given_up


@pytest.mark.parametrize("interrupted_by", [([OVER], set()), ([], {2})])
def test_only_one_that_was_silent_and_over_all_the_time(
    interrupted_by: tuple[list[Over], set[int]],
) -> None:
    clock, limit = Clock(), RetentionLimit()
    limit.to_give_up([OVER], {2}, AFTER, clock.now)
    limit.to_give_up(*interrupted_by, AFTER, clock.wait(AFTER - 1))
    assert limit.to_give_up([OVER], {2}, AFTER, clock.wait(2)) == []
    assert limit.to_give_up([OVER], {2}, AFTER, clock.wait(AFTER)) == [OVER]


def test_where_giving_up_fails_it_is_tried_again() -> None:
    clock, limit = Clock(), RetentionLimit()
    limit.to_give_up([OVER], {2}, AFTER, clock.now)
    assert limit.to_give_up([OVER], {2}, AFTER, clock.wait(AFTER)) == [OVER]
    assert limit.to_give_up([OVER], {2}, AFTER, clock.wait(1)) == []
    assert limit.to_give_up([OVER], {2}, AFTER, clock.wait(AFTER)) == [OVER]
