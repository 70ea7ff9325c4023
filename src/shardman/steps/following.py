"""Following writes by a log of their keys until what is left fits into a cut-over: the loop of all who copy a
table beside its writers."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from shardman.errors import Code, UserError

#: What is replayed within the limit fits into a cut-over. The limit grows with the rounds, first slowly, for
#: the next one may find less to do, then faster: where a round itself takes long, as on a busy server, none
#: does. In seconds, by the number of the round.
LONGER_S = 0.001
LONGEST_S = 1.0
#: So many rounds without an end, and the application writes faster than we can follow.
MAX_ROUNDS = 500


async def follow(
    replay: Callable[[], Awaitable[int | None]],
    *,
    relation: str,
    follower: str,
    short_s: float,
    tell: Callable[[str | None], Awaitable[None]] | None = None,
) -> None:
    """Replays until little is left.

    Args:
        replay: one round; returns how many entries of the log there were, None where it has begun anew.
        relation: whose writes they are.
        follower: what follows them, in words.
        short_s: a round that is done within so many seconds is the last.
        tell: hears what is waited for, and None at the end.

    Raises:
        UserError: the application writes faster than this can follow.
    """
    for number in range(MAX_ROUNDS):
        begun = time.monotonic()
        entries = await replay()
        took = time.monotonic() - begun
        limit = min(short_s + number**2 * LONGER_S, LONGEST_S)
        if entries == 0 or (entries is not None and took < limit):
            if tell is not None:
                await tell(None)
            return
        if tell is not None and entries:
            await tell(f"{entries} writes to {relation} to be caught up with")
    raise UserError(
        f"{relation} is written to faster than {follower} can follow",
        "Try again when there is less to do",
        code=Code.TOO_BUSY,
    )
