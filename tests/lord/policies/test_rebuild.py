"""When lost replicas are made again, and when old copies are brought up to date."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lord.policies.clusters import LONG_AGO, Clock, cluster, ring
from shardman.lord.policies.rebuild import (
    AGAIN_S,
    AT_FIRST,
    NOBODY_AWAY_S,
    WELL_S,
    Levels,
    OldCopy,
    Seldom,
    behind,
    below_level,
    superfluous,
)

AFTER = 600.0
COPY = OldCopy("acc_0", 2, LONG_AGO)


def due(levels: Levels, clock: Clock, *, complete: bool, short: tuple[str, ...] = ("acc",)) -> bool:
    return bool(levels.due(short, complete=complete, after=AFTER, now=clock.now))


@pytest.mark.parametrize(("complete", "wait"), [(False, AFTER), (True, NOBODY_AWAY_S)])
def test_a_table_that_was_short_for_long_is_due_once(complete: bool, wait: float) -> None:
    clock, levels = Clock(), Levels()
    assert not due(levels, clock, complete=complete)
    clock.wait(wait - 0.1)
    assert not due(levels, clock, complete=complete)
    clock.wait(0.1)
    assert due(levels, clock, complete=complete)
    assert not due(levels, clock, complete=complete)


def test_what_is_short_all_the_time_is_due_ever_more_seldom() -> None:
    clock, levels = Clock(), Levels()
    tried = []
    for second in range(2000):
        if due(levels, clock, complete=True):
            tried.append(second)
        clock.wait(1)
    assert [b - a for a, b in pairwise(tried)][:5] == [60, 120, 240, 480, 600]
    # The last node is back: what has failed may succeed.
    due(levels, clock, complete=False)
    due(levels, clock, complete=True)
    clock.wait(NOBODY_AWAY_S)
    assert due(levels, clock, complete=True)


def test_the_half_minute_counts_from_when_every_node_is_there() -> None:
    clock, levels = Clock(), Levels()
    assert not due(levels, clock, complete=False)
    clock.wait(100)
    assert not due(levels, clock, complete=True)
    clock.wait(NOBODY_AWAY_S - 1)
    assert not due(levels, clock, complete=True)
    assert not due(levels, clock, complete=False)
    clock.wait(1)
    assert not due(levels, clock, complete=True)
    clock.wait(NOBODY_AWAY_S)
    assert due(levels, clock, complete=True)


def test_a_level_that_was_reached_in_between_counts_anew() -> None:
    clock, levels = Clock(), Levels()
    due(levels, clock, complete=False)
    clock.wait(AFTER - 1)
    assert not due(levels, clock, complete=False, short=())
    clock.wait(2)
    assert not due(levels, clock, complete=False)
    levels.well(clock.now)
    clock.wait(AFTER)
    assert not due(levels, clock, complete=False)


def test_tables_are_due_each_by_itself() -> None:
    clock, levels = Clock(), Levels()
    levels.due(["b"], complete=False, after=AFTER, now=clock.now)
    found = levels.due(["b", "a"], complete=False, after=AFTER, now=clock.wait(AFTER))
    assert found == ["b"]
    found = levels.due(["b", "a"], complete=False, after=AFTER, now=clock.wait(AFTER))
    assert found == ["a", "b"]


def test_an_old_copy_is_tried_at_once_and_then_ever_more_seldom() -> None:
    clock, levels = Clock(), Levels()
    tried = []
    for second in range(200):
        if levels.renewals([COPY], clock.now):
            tried.append(second)
        clock.wait(1)
    assert tried == [0, AGAIN_S, 3 * AGAIN_S, 7 * AGAIN_S, 15 * AGAIN_S]


def test_one_that_was_well_is_tried_at_once_again() -> None:
    clock, levels = Clock(), Levels()
    assert levels.renewals([COPY], clock.now) == [COPY]
    assert levels.renewals([COPY], clock.wait(1)) == []
    assert levels.renewals([], clock.wait(1)) == []
    assert levels.renewals([COPY], clock.wait(1)) == [COPY]


def test_what_breaks_again_and_again_is_made_again_ever_more_seldom() -> None:
    """Each time it works, and is given up some seconds later: whoever writes waits each time."""
    clock, levels = Clock(), Levels()
    made, broken = [], True
    for second in range(200):
        if broken and levels.renewals([COPY], clock.now):
            made.append(second)
            broken = False
        elif not broken:
            levels.renewals([], clock.now)
            if broken := second - made[-1] >= 3:
                levels.failing(2)
        clock.wait(1)
    gaps = [b - a for a, b in pairwise(made)]
    assert gaps[0] < AGAIN_S <= gaps[1] < gaps[2] < gaps[3]


def test_what_breaks_within_one_look_was_made_all_the_same() -> None:
    """No look finds it whole in between: it is another old copy then."""
    clock, levels = Clock(), Levels()
    made: list[int] = []
    copy = COPY
    for second in range(200):
        if levels.renewals([copy], clock.now):
            made.append(second)
            copy = COPY._replace(since=LONG_AGO + timedelta(seconds=second + 1))
            levels.failing(2)
        clock.wait(1)
    gaps = [b - a for a, b in pairwise(made)]
    assert gaps[0] < AGAIN_S <= gaps[1] < gaps[2] < gaps[3]


MANY = [OldCopy(f"acc_{n}", 2, LONG_AGO) for n in range(16)]


def test_of_many_that_fail_few_are_tried() -> None:
    clock, levels = Clock(), Levels()
    tried = 0
    for _ in range(30):
        tried += len(levels.renewals(MANY, clock.now))
        clock.wait(1)
    assert tried == AT_FIRST + 1


def test_of_many_that_come_through_all_are_tried() -> None:
    clock, levels = Clock(), Levels()
    first = levels.renewals(MANY, clock.now)
    rest = MANY[len(first) :]
    assert levels.renewals(rest, clock.wait(2)) == rest


def test_one_that_takes_long_holds_up_no_other() -> None:
    clock, levels = Clock(), Levels()
    for copy in levels.renewals(MANY, clock.now):
        assert copy in MANY[:AT_FIRST]
    (again,) = levels.renewals(MANY, clock.wait(AGAIN_S))
    levels.on_its_way(again)
    found = levels.renewals(MANY, clock.wait(2 * AGAIN_S))
    assert set(MANY[:AT_FIRST]) <= set(found)


def test_what_waits_for_its_turn_has_not_failed() -> None:
    """Behind a command that takes long: the pause does not grow with each look."""
    clock, levels = Clock(), Levels()
    levels.renewals([COPY], clock.now)
    for _ in range(30):
        for copy in levels.renewals([COPY], clock.wait(2)):
            levels.on_its_way(copy)
    # What was waited for has taken it back.
    tried = [n for n in range(30) if levels.renewals([COPY], clock.wait(1))]
    assert len(tried) in (1, 2)
    assert tried[0] <= 2 * AGAIN_S


@given(st.lists(st.floats(0, 30), max_size=100))
def test_attempts_never_come_closer_than_the_first_pause(pauses: list[float]) -> None:
    clock, levels = Clock(), Levels()
    tried = [clock.now for pause in pauses if levels.renewals([COPY], clock.wait(pause))]
    gaps = [b - a for a, b in pairwise(tried)]
    assert all(gap >= AGAIN_S * 2**n - 1e-6 for n, gap in enumerate(gaps))


@pytest.mark.parametrize(
    ("there", "level", "expected"),
    [
        ({1, 2, 3}, 2, [("acc_0", 3)]),
        ({1, 2, 3}, 0, []),  # one follows already: that was for one that is wanted of itself
        ({1, 2}, 2, []),  # it is away
        ({2, 3}, 2, []),  # there is nothing to copy from
    ],
)
def test_which_old_copies_are_wanted(
    there: set[int], level: int, expected: list[tuple[str, int]]
) -> None:
    old = frozenset({("acc_0", 3)})
    found = cluster([1, 2, 3], {"acc_0": [1, 2, 3]}, stale=old, level=level)
    assert [c[:2] for c in behind(found, there)] == expected


def test_without_a_level_the_only_replica_is_brought_up_to_date() -> None:
    found = cluster([1, 2], {"acc_0": [1, 2]}, stale=frozenset({("acc_0", 2)}))
    assert list(behind(found, {1, 2})) == [COPY]


@pytest.mark.parametrize(
    ("lists", "level", "there", "short"),
    [
        ({"acc_0": [1, 2]}, 1, {1, 2, 3}, set()),
        ({"acc_0": [1, 2]}, 2, {1, 2, 3}, {"acc"}),
        ({"acc_0": [1]}, 1, {1, 2, 3}, {"acc"}),
        ({"acc_0": [1]}, 1, {1}, set()),  # nobody could take one
        ({"acc_0": [1]}, 1, {2, 3}, set()),  # nothing to copy from
        ({"acc_0": [1]}, 0, {1, 2, 3}, set()),
    ],
)
def test_which_tables_are_short(
    lists: dict[str, list[int]], level: int, there: set[int], short: set[str]
) -> None:
    assert below_level(cluster([1, 2, 3], lists, level=level), there, there) == short


@pytest.mark.parametrize(
    ("level", "there", "due"),
    [
        (1, {1, 2, 3}, {"acc"}),
        (1, {1, 2}, set()),  # it is away
        (1, {2, 3}, set()),  # without the primary it may be the last copy
        (2, {1, 2, 3}, {"acc"}),  # it is wanted, and counts for the level only when it follows
        (0, {1, 2, 3}, set()),  # no level was asked for
    ],
)
def test_an_old_copy_of_which_there_are_enough(level: int, there: set[int], due: set[str]) -> None:
    """It would be stale for good."""
    old = frozenset({("acc_0", 3)})
    found = cluster([1, 2, 3], {"acc_0": [1, 2, 3]}, stale=old, level=level)
    assert below_level(found, there, there) == due
    assert superfluous(found, "acc_0", there) == (level == 1 and 3 in there)


def test_a_whole_cluster_lacks_nothing() -> None:
    assert below_level(ring(5), range(1, 6), range(1, 6)) == set()
    assert list(behind(ring(5), range(1, 6))) == []


def test_a_table_that_fails_again_and_again_is_tried_ever_more_seldom() -> None:
    clock, seldom = Clock(), Seldom()
    pauses = []
    for _ in range(4):
        seldom.failing(2, "acc", clock.now)
        begun = clock.now
        while seldom.holds(2, "acc", clock.now):
            clock.wait(1)
        pauses.append(clock.now - begun)
        assert not seldom.holds(2, "other", clock.now)
        assert not seldom.holds(3, "acc", clock.now)
    assert pauses[0] == 0
    assert all(b >= 2 * a for a, b in pairwise(pauses))
    clock.wait(2 * pauses[-1] + WELL_S)
    seldom.failing(2, "acc", clock.now)
    assert not seldom.holds(2, "acc", clock.now)
