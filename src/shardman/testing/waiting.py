"""Waiting for what becomes true by itself: the only loop for it in the tests."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TypeVar

import psycopg

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


def repeated(transaction: Callable[[], T], *, tries: int = 5) -> T:
    """Runs a transaction again that another one was in the way of, as its hint says.

    Args:
        transaction: begins and ends one, such as DDL that meets a cut-over.
        tries: so many at most.

    Returns:
        What it gives.

    Raises:
        psycopg.errors.SerializationFailure: the last try failed of it, too.
    """
    for _ in range(tries - 1):
        with contextlib.suppress(psycopg.errors.SerializationFailure):
            return transaction()
        time.sleep(0.2)
    return transaction()
