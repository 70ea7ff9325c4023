"""Whether a replica can take all that may be written to its primary.

An owner may change the table of his primary: drop a key, alter a type. What he writes then, the replica's table
refuses, and the channel that feeds it stands still, with the replicas of everybody else's tables on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Takes:
    """See shardman.takes.

    Args:
        version: which server says so. Two write the same thing differently.
        locked: somebody changes the table just now.
    """

    version: int
    needs: frozenset[str]
    rules: frozenset[str]
    locked: bool = False


def refused(primary: Takes, replica: Takes) -> str | None:
    """Why a replica could refuse what its primary takes, in words; None where it could not, or it is not
    known."""
    if primary.version != replica.version or primary.locked or replica.locked:
        return None
    if lacks := primary.needs - replica.needs:
        return f"the replica's table lacks {', '.join(sorted(lacks))}, which the primary's has"
    if more := replica.rules - primary.rules:
        return f"the primary's table lacks {', '.join(sorted(more))}, which the replica's has"
    return None


def refusals(primaries: Mapping[str, Takes], replicas: Mapping[str, Takes]) -> dict[str, str]:
    """The replicas behind a channel that could refuse what comes, and why, by partition."""
    found = {
        part: refused(takes, replicas[part])
        for part, takes in sorted(primaries.items())
        if part in replicas
    }
    return {part: why for part, why in found.items() if why is not None}
