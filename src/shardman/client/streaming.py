"""Rows of all nodes as they come: each node streams its own, and they are merged one by one.

What waits to be read waits in the nodes: PostgreSQL sends no more than the connections' buffers hold. So memory
stays the same for any number of rows.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from decimal import Decimal
from functools import total_ordering
from typing import Any

import psycopg

from shardman.client.routing.asked import Sort
from shardman.client.routing.placeholders import Params
from shardman.client.together import at_once

_END = object()


@dataclass(frozen=True)
class Streams:
    """What is asked for.

    Args:
        sessions: of the nodes.
        texts: for each of them.
        sorts: how rows are sorted; nothing where they come in any order.
        told: an error, with the node where it arose.
    """

    sessions: Sequence[Any]
    texts: Sequence[str]
    params: Params
    sorts: Sequence[Sort]
    told: Callable[[psycopg.Error, int], psycopg.Error]


@total_ordering
class _Down:
    """A value of a column that is sorted from the greatest on."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Down) and bool(self.value == other.value)

    def __lt__(self, other: _Down) -> bool:
        return bool(other.value < self.value)

    __hash__ = None  # type: ignore[assignment]


class _Merge:
    """Which source's row is next.

    Args:
        sorts: as those of `Streams`.
    """

    def __init__(self, sorts: Sequence[Sort]) -> None:
        self._sorts = sorts
        self._heads: list[tuple[Any, int, Any]] = []
        self._turn = 0

    def put(self, source: int, row: Any) -> None:
        """The next row of a source."""
        self._turn += 1
        key = [_key(s, row[s.column]) for s in self._sorts] or self._turn
        heapq.heappush(self._heads, (key, source, row))

    def pop(self) -> tuple[int, Any] | None:
        """The next of all, and from where it is; None at the end."""
        if not self._heads:
            return None
        _, source, row = heapq.heappop(self._heads)
        return source, row


def _key(sort: Sort, value: Any) -> tuple[Any, ...]:
    if value is None:
        return (not sort.nulls_first,)
    # NaN is the greatest, and equal to itself.
    nan = isinstance(value, Decimal) and value.is_nan()
    key: Any = (nan, 0 if nan else value)
    return (sort.nulls_first, _Down(key) if sort.down else key)


def merged(
    cursors: Sequence[Any], streams: Streams, row_factory: Any, options: dict[str, Any]
) -> Generator[Any, None, None]:
    """The rows, of cursors that give tuples."""
    sources = [
        c.stream(text, streams.params, **options)
        for c, text in zip(cursors, streams.texts, strict=True)
    ]
    merge = _Merge(streams.sorts)
    make: list[Callable[[Any], Any] | None] = [None] * len(cursors)
    first: list[Any] = [_END] * len(cursors)

    def begin(source: int) -> Callable[[], None]:
        def do() -> None:
            first[source] = following(source)

        return do

    def following(source: int) -> Any:
        try:
            return next(sources[source], _END)
        except psycopg.Error as error:
            raise streams.told(error, source) from None

    try:
        at_once(streams.sessions, [begin(i) for i in range(len(sources))])
        for i, row in enumerate(first):
            if row is not _END:
                merge.put(i, row)
        while (found := merge.pop()) is not None:
            i, row = found
            maker = make[i] = make[i] or row_factory(cursors[i])
            yield maker(row)
            row = following(i)
            if row is not _END:
                merge.put(i, row)
    finally:
        for source in sources:
            source.close()


async def merged_async(
    cursors: Sequence[Any], streams: Streams, row_factory: Any, options: dict[str, Any]
) -> AsyncGenerator[Any, None]:
    """As `merged`."""
    sources = [
        c.stream(text, streams.params, **options)
        for c, text in zip(cursors, streams.texts, strict=True)
    ]
    merge = _Merge(streams.sorts)
    make: list[Callable[[Any], Any] | None] = [None] * len(cursors)

    async def following(source: int) -> Any:
        try:
            return await anext(sources[source], _END)
        except psycopg.Error as error:
            raise streams.told(error, source) from None

    try:
        calls = [following(i) for i in range(len(sources))]
        first = await asyncio.gather(*calls, return_exceptions=True)
        for problem in first:
            if isinstance(problem, BaseException):
                raise problem
        for i, row in enumerate(first):
            if row is not _END:
                merge.put(i, row)
        while (found := merge.pop()) is not None:
            i, row = found
            maker = make[i] = make[i] or row_factory(cursors[i])
            yield maker(row)
            row = await following(i)
            if row is not _END:
                merge.put(i, row)
    finally:
        for source in sources:
            async with aclosing(source):
                pass


def loads_plainly(session: Any, sorts: Sequence[Sort]) -> bool:
    """Whether values that are compared are those of psycopg."""
    return all(
        session.adapters.get_loader(sort.oid, format_).__module__.startswith("psycopg")
        for sort in sorts
        for format_ in (psycopg.pq.Format.TEXT, psycopg.pq.Format.BINARY)
    )
