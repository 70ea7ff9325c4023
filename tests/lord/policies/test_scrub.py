"""Each replica has its turn, and no more is read in a second than may be."""

from __future__ import annotations

import pytest

from shardman.lord.policies.scrub import LEAST_PAUSE_S, Turns, pause
from shardman.lord.policies.shared_scrub import MOST_ROWS, agreed, why_not

A, B, C = ("acc_0", 1), ("acc_0", 2), ("acc_1", 2)


def test_the_one_that_waited_longest_is_next() -> None:
    turns = Turns()
    turns.keep([A, B], (), now=0)
    turns.tried(B, -50)
    assert turns.next(60, now=5) is None
    assert turns.next(60, now=10) == B
    turns.tried(B, 10)
    turns.keep([A, B, C], (), now=20)
    assert turns.next(60, now=60) == A
    turns.keep([B, C], (), now=60)
    assert turns.next(60, now=70) == B
    assert turns.next(0, now=70) == B


def test_those_of_a_node_that_was_away_come_first() -> None:
    turns = Turns()
    turns.keep([A, B], (), now=0)
    turns.keep([A], [B], now=50)
    assert turns.next(60, now=55) is None
    turns.keep([A, B], (), now=56)
    assert turns.next(60, now=56) == B
    turns.tried(B, 56)
    turns.keep([A, B], (), now=57)
    assert turns.next(60, now=57) is None


def test_the_pause_makes_up_for_what_was_read() -> None:
    assert pause(10_000, 1_000, took=2) == 8
    assert pause(10, 1_000, took=0.1) == LEAST_PAUSE_S
    assert pause(1_000, 1_000, took=5) == LEAST_PAUSE_S


@pytest.mark.parametrize(
    ("copies", "right"),
    [
        ({1: "a", 2: "a", 3: "b"}, 1),
        ({1: "b", 2: "a", 3: "a"}, 2),
        ({1: "a", 2: "b"}, None),
        ({1: "a", 2: "b", 3: "c"}, None),
        ({1: "a", 2: "a", 3: "b", 4: "b"}, None),
        ({1: "b", 2: "a", 3: "a", 4: "c", 5: "a"}, 2),
    ],
)
def test_a_copy_is_right_where_most_have_it(copies: dict[int, str], right: int | None) -> None:
    assert agreed(copies) == right


def test_a_copy_of_a_shared_table_is_mended_only_where_that_is_clear() -> None:
    assert why_not(1, MOST_ROWS, repair=True) is None
    assert "half" in str(why_not(None, 1, repair=True))
    assert "rows differ" in str(why_not(1, MOST_ROWS + 1, repair=True))
    assert "scrub_repair" in str(why_not(1, 1, repair=False))
