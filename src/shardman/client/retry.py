"""When a transaction is repeated, and after which pause."""

from __future__ import annotations

import random
from itertools import count

import psycopg
from psycopg import errors

#: By these the server says that nothing has happened and the same may succeed: 40001 and 40P01.
REPEATED = (errors.SerializationFailure, errors.DeadlockDetected)
FIRST_S = 0.005
LONGEST_S = 1.0


class Pauses:
    """Of one piece of work, by exponential backoff with full jitter (Brooker, AWS Architecture Blog, 2015).

    Args:
        attempts: how often it is tried at most; None: without an end.
    """

    def __init__(self, attempts: int | None) -> None:
        if attempts is not None and attempts < 1:
            raise ValueError("attempts: at least one")
        self._attempts = attempts
        self._count = count(1)

    def next(self, error: psycopg.Error) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            psycopg.Error: the error, when it was the last one.
        """
        done = next(self._count)
        if self._attempts is not None and done >= self._attempts:
            error.add_note(f"shardman: tried {done} times")
            raise error
        return random.uniform(0, min(LONGEST_S, FIRST_S * 2.0 ** min(done, 20)))  # noqa: S311
