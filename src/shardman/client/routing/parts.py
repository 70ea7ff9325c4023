"""How a statement is split over the partitions that it touches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shardman.client.routing.placeholders import Name, Params


@dataclass(frozen=True)
class Row:
    """A row of VALUES.

    Args:
        start, end: its bytes in the text as it was, parentheses included.
        names: the parameters in it.
    """

    start: int
    end: int
    names: frozenset[Name]


@dataclass(frozen=True)
class Split:
    """How a statement is split.

    Args:
        rows: each part gets those of its partition; empty where a condition names the keys.
        keys: the parameter that lists them, if nothing else is one: each part gets its own.
        waits: it may wait for rows that others have locked, so nodes have their turn in an order that is the
            same for all.
    """

    rows: tuple[Row, ...] = ()
    keys: Name | None = None
    waits: bool = True

    def params(self, params: Params, kept: Sequence[int], keys: Sequence[object]) -> Params:
        """Those of a part: without those of rows that are not in it.

        Args:
            kept: its rows.
            keys: those of its partition.
        """
        if params is None or (not self.rows and self.keys is None):
            return params
        if self.keys is not None:
            if isinstance(params, Mapping):
                return {**params, self.keys: keys}  # type: ignore[dict-item]
            return [keys if i == self.keys else p for i, p in enumerate(params)]
        if isinstance(params, Mapping):
            return params
        of_rows = {name for row in self.rows for name in row.names}
        own = {name for i in kept for name in self.rows[i].names}
        return [p for i, p in enumerate(params) if i not in of_rows or i in own]
