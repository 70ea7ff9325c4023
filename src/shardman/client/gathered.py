"""The answer to a statement that was sent in parts: one cursor's, as psycopg's has it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Self

import psycopg

from shardman.client.sessions import Steps
from shardman.client.splitting import Piece


class _Gathered:
    """What is not defined here is that of the first part's cursor.

    Args:
        cursors: of the parts.
        rows: of all of them; None where the statement gives none.
    """

    #: Whatever session is next, it is another one's.
    connection = None

    def __init__(self, cursors: Sequence[Any], rows: list[Any] | None) -> None:
        self._cursors = cursors
        self._rows = rows
        self._at = 0
        self.arraysize = 1
        self.rowcount = sum(c.rowcount for c in cursors)
        words = (cursors[0].statusmessage or "").split(" ")
        self.statusmessage = " ".join([*words[:-1], str(self.rowcount)])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursors[0], name)

    @property
    def rownumber(self) -> int | None:
        return None if self._rows is None else self._at

    def nextset(self) -> None:
        return None

    def _all(self) -> list[Any]:
        if self._rows is None:
            raise psycopg.ProgrammingError("the last operation didn't produce records")
        return self._rows

    def _next(self, count: int | None) -> list[Any]:
        end = None if count is None else self._at + count
        found = self._all()[self._at : end]
        self._at += len(found)
        return found

    def _one(self) -> Any:
        found = self._next(1)
        return found[0] if found else None

    def _scroll(self, value: int, mode: str) -> None:
        if mode not in ("relative", "absolute"):
            raise ValueError(f"bad mode: {mode}. It should be 'relative' or 'absolute'")
        at = value + (self._at if mode == "relative" else 0)
        if not 0 <= at < len(self._all()):
            raise IndexError("position out of bound")
        self._at = at


class Gathered(_Gathered):
    """As `psycopg.Cursor` behind execute."""

    def fetchone(self) -> Any:
        return self._one()

    def fetchmany(self, size: int = 0) -> list[Any]:
        return self._next(size or self.arraysize)

    def fetchall(self) -> list[Any]:
        return self._next(None)

    def scroll(self, value: int, mode: str = "relative") -> None:
        self._scroll(value, mode)

    def results(self) -> Iterator[Any]:
        yield self

    def __iter__(self) -> Iterator[Any]:
        self._all()
        while found := self._next(1):
            yield found[0]

    def close(self) -> None:
        for cursor in self._cursors:
            cursor.close()


class AsyncGathered(_Gathered):
    """As `psycopg.AsyncCursor` behind execute."""

    async def fetchone(self) -> Any:
        return self._one()

    async def fetchmany(self, size: int = 0) -> list[Any]:
        return self._next(size or self.arraysize)

    async def fetchall(self) -> list[Any]:
        return self._next(None)

    async def scroll(self, value: int, mode: str = "relative") -> None:
        self._scroll(value, mode)

    async def results(self) -> AsyncIterator[Any]:
        yield self

    async def __aiter__(self) -> AsyncIterator[Any]:
        self._all()
        while found := self._next(1):
            yield found[0]

    async def close(self) -> None:
        for cursor in self._cursors:
            await cursor.close()


class _Sets:
    """What is not defined here is that of the cursor which has the present set of rows.

    Args:
        cursors: of each set, in their order.
    """

    #: As `_Gathered` has it.
    connection = None

    def __init__(self, cursors: Sequence[Any]) -> None:
        self._cursors = cursors
        self._at = 0
        # A cursor's own sets are in their order.
        self._first = {id(c): n for n, c in reversed(list(enumerate(cursors)))}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursors[self._at], name)

    def nextset(self) -> bool | None:
        if self._at + 1 == len(self._cursors):
            return None
        self._at += 1
        cursor = self._cursors[self._at]
        if self._first[id(cursor)] != self._at:
            cursor.nextset()
        return True

    def _set(self, index: int) -> None:
        count = len(self._cursors)
        if not -count <= index < count:
            raise IndexError(f"index {index} out of range: {count} result(s) available")
        self._at = index % count
        cursor = self._cursors[self._at]
        self._own = sum(c is cursor for c in self._cursors[: self._at])


class Sets(_Sets):
    """As `psycopg.Cursor` behind executemany."""

    def set_result(self, index: int) -> Self:
        self._set(index)
        self._cursors[self._at].set_result(self._own)
        return self

    def results(self) -> Iterator[Any]:
        yield self
        while self.nextset():
            yield self

    def __iter__(self) -> Iterator[Any]:
        return iter(self._cursors[self._at])

    def close(self) -> None:
        for cursor in self._cursors:
            cursor.close()


class AsyncSets(_Sets):
    """As `psycopg.AsyncCursor` behind executemany."""

    async def set_result(self, index: int) -> Self:
        self._set(index)
        await self._cursors[self._at].set_result(self._own)
        return self

    async def results(self) -> AsyncIterator[Any]:
        yield self
        while self.nextset():
            yield self

    def __aiter__(self) -> AsyncIterator[Any]:
        return aiter(self._cursors[self._at])

    async def close(self) -> None:
        for cursor in self._cursors:
            await cursor.close()


def in_sets(cursors: Sequence[Any]) -> Any:
    """One cursor with the sets of rows of several, each as often in ``cursors`` as it has sets."""
    kind = AsyncSets if isinstance(cursors[0], psycopg.AsyncCursor) else Sets
    return kind(cursors)


def gather(pieces: Sequence[Piece], cursors: Sequence[Any]) -> Steps:
    """One cursor of those of the parts. Rows of VALUES are in their order, where each has an answer."""
    kind = AsyncGathered if isinstance(cursors[0], psycopg.AsyncCursor) else Gathered
    if cursors[0].description is None:
        return kind(cursors, None)
    rows: list[Any] = []
    for cursor in cursors:
        rows += yield cursor.fetchall
    places = [row for piece in pieces for row in piece.rows]
    if len(places) == len(rows):
        rows = [row for _, row in sorted(zip(places, rows, strict=True), key=lambda r: r[0])]
    return kind(cursors, rows)
