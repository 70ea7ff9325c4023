"""Times things by turns, so that whatever the machine does meanwhile meets all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def side_by_side(
    works: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 3
) -> dict[str, float]:
    """Median seconds of each work, called by turns so that noise meets all of them alike."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(warm_up + rounds):
        for name, work in works.items():
            took = seconds(work)
            if turn >= warm_up:
                taken[name].append(took)
    return {name: statistics.median(each) for name, each in taken.items()}
