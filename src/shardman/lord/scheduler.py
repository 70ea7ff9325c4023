"""Which waiting commands may begin: pure.

Commands begin in the order of their ids. One that would disturb an earlier one that has not ended
waits for it; others may overtake it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shardman.commands.base import Claim

#: More than this at once is only load on the nodes.
MAX_RUNNING = 8


def disturb(one: Iterable[Claim], other: Iterable[Claim]) -> bool:
    """Whether two commands must not run at the same time."""
    mine = {c.name: c.shared for c in one}
    return any(c.name in mine and not (c.shared and mine[c.name]) for c in other)


def startable(
    waiting: Sequence[tuple[int, frozenset[Claim]]],
    running: Sequence[frozenset[Claim]],
    at_most: int = MAX_RUNNING,
) -> list[int]:
    """The commands that may begin now.

    Args:
        waiting: id and claims, in the order of ids.
        running: claims of those in progress.
        at_most: so many run at once.
    """
    ahead = list(running)
    chosen: list[int] = []
    for cmd_id, claims in waiting:
        if len(running) + len(chosen) >= at_most:
            break
        if not any(disturb(claims, other) for other in ahead):
            chosen.append(cmd_id)
        ahead.append(claims)
    return chosen
