"""The one way to wait. Without a server."""

from __future__ import annotations

from itertools import count

import pytest

from shardman.testing import eventually


def test_it_gives_what_it_saw() -> None:
    numbers = count()
    assert eventually("a three", lambda: next(numbers), until=lambda n: n == 3, every=0) == 3
    assert next(numbers) == 4


def test_what_is_right_at_once_is_taken_without_time() -> None:
    assert eventually("something", lambda: "x", seconds=0, every=60) == "x"


def test_a_failure_says_what_was_waited_for_and_what_was_seen() -> None:
    numbers = count()
    with pytest.raises(
        AssertionError, match=r"a pig that flies: not within 0\.05 s, last seen \d+; 'ham'"
    ):
        eventually(
            "a pig that flies",
            lambda: next(numbers),
            until=lambda _: False,
            seconds=0.05,
            every=0.01,
            after=lambda: "ham",
        )
    assert 2 <= next(numbers) <= 7


def test_only_what_is_tolerated_is_waited_out() -> None:
    numbers = count()

    def look() -> int:
        if (number := next(numbers)) < 2:
            raise KeyError(number)
        return number

    assert eventually("a number", look, tolerate=KeyError, every=0) == 2
    numbers = count()
    with pytest.raises(KeyError):
        eventually("a number", look, tolerate=(ValueError, OSError), every=0)


def test_what_is_tolerated_is_shown_at_the_end() -> None:
    def look() -> int:
        raise ValueError("not yet")

    with pytest.raises(AssertionError, match=r"ValueError\('not yet'\)"):
        eventually("a value", look, tolerate=ValueError, seconds=0)
