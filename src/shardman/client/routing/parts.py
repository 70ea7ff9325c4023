"""How a statement is split over the partitions that it touches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
        lists: the parameters of unnest, of which each part gets the elements of its rows.
        keys: the parameter that lists them, if nothing else is one: each part gets its own.
        waits: it may wait for rows that others have locked, so nodes have their turn in an order that is the
            same for all.
    """

    rows: tuple[Row, ...] = ()
    keys: Name | None = None
    waits: bool = True
    lists: tuple[Name, ...] = ()

    def fits(self, params: Params) -> bool:
        """Whether lists of columns are as long as each other."""
        if not self.lists:
            return True
        values = [params[name] for name in self.lists]  # type: ignore[index]
        return all(type(v) in (list, tuple) for v in values) and len(set(map(len, values))) == 1

    def params(self, params: Params, kept: Sequence[int], keys: Sequence[object]) -> Params:
        """Those of a part: without those of rows that are not in it.

        Args:
            kept: its rows.
            keys: those of its partition.
        """
        if params is None or not (self.rows or self.lists or self.keys is not None):
            return params
        if self.lists:
            return _some(params, self.lists, kept)
        if self.keys is not None:
            if isinstance(params, Mapping):
                return {**params, self.keys: keys}  # type: ignore[dict-item]
            return [keys if i == self.keys else p for i, p in enumerate(params)]
        if isinstance(params, Mapping):
            return params
        of_rows = {name for row in self.rows for name in row.names}
        own = {name for i in kept for name in self.rows[i].names}
        return [p for i, p in enumerate(params) if i not in of_rows or i in own]


def _some(
    params: Sequence[Any] | Mapping[str, Any], lists: Sequence[Name], kept: Sequence[int]
) -> Params:
    """Parameters, of whose lists some elements are left."""
    if isinstance(params, Mapping):
        return {k: [v[i] for i in kept] if k in lists else v for k, v in params.items()}
    return [[v[i] for i in kept] if k in lists else v for k, v in enumerate(params)]
