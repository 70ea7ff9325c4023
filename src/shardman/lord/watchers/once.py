"""Complaints that are made once, and again only after things were well in between."""

from __future__ import annotations

from collections.abc import Hashable


class Once:
    """What was complained of already."""

    def __init__(self) -> None:
        self._said: set[Hashable] = set()

    def first(self, subject: Hashable) -> bool:
        """Whether nobody has complained of this since it was well last."""
        first = subject not in self._said
        self._said.add(subject)
        return first

    def well(self, subject: Hashable) -> None:
        """It is well now."""
        self._said.discard(subject)
