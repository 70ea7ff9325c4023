"""Waiting for what becomes true by itself: the only loop for it in the tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(
    what: str,
    look: Callable[[], T],
    *,
    until: Callable[[T], object] = bool,
    seconds: float = 120,
    every: float = 0.1,
    tolerate: type[Exception] | tuple[type[Exception], ...] = (),
    after: Callable[[], object] | None = None,
) -> T:
    """Looks again and again, at least once, until what it sees is right.

    Args:
        what: is waited for, in words; the message of a failure begins with it.
        look: gives what is to be judged.
        until: whether what was seen is right; by default whether it is something.
        seconds: from now on; whatever takes longer is a failure.
        every: seconds between two looks.
        tolerate: exceptions of `look` that mean no more than "not yet".
        after: gives what a failure shows as well, such as a command's row; called only then.

    Returns:
        What was seen last.

    Raises:
        AssertionError: it did not become right in time; says what was seen last.
    """
    end = time.monotonic() + seconds
    while True:
        seen: object
        try:
            seen = found = look()
            if until(found):
                return found
        except tolerate as error:
            seen = error
        if time.monotonic() >= end:
            more = f"; {after()!r}" if after else ""
            raise AssertionError(f"{what}: not within {seconds:g} s, last seen {seen!r}{more}")
        time.sleep(every)
