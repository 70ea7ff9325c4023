"""On which nodes a fault strikes."""

from __future__ import annotations

import random
from collections.abc import Callable

from shardman.testing.cluster import Cluster


class Striking:
    """Each of its methods strikes a node that is picked, and is over when it returns.

    Args:
        pick: a node; its clients are not meant.
        strike: a node whose own clients are meant, too.
    """

    def __init__(
        self,
        cluster: Cluster,
        rng: random.Random,
        pick: Callable[[], int],
        strike: Callable[[], int],
    ) -> None:
        self._cluster = cluster
        self._rng = rng
        self._pick = pick
        self._strike = strike
