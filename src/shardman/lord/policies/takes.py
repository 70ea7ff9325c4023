"""When a difference between the tables of a primary and its replica is one."""

from __future__ import annotations

from collections.abc import Mapping

#: How long a difference must last, in seconds: nodes commit one after the other what changes all of them.
LASTS_S = 3.0


class Lasting:
    """Since when something is seen, again and again."""

    def __init__(self) -> None:
        self._since: dict[tuple[int, int], dict[str, float]] = {}

    def lasts(self, pair: tuple[int, int], found: Mapping[str, str], now: float) -> set[str]:
        """Of what is found of a channel now, what was found all the time for long."""
        since = self._since.get(pair, {})
        self._since[pair] = {part: since.get(part, now) for part in found}
        return {part for part, then in self._since[pair].items() if now - then >= LASTS_S}
