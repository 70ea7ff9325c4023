"""psycopg's placeholders as PostgreSQL's, so that a parser can read the statement."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_PLACEHOLDER = re.compile(rb"%(?:\(([^)]+)\))?(.)", re.DOTALL)

#: Position of a parameter, or its name.
Name = int | str
Params = Sequence[Any] | Mapping[str, Any] | None


class Unreadable(Exception):
    """psycopg will say what is wrong with it."""


@dataclass(frozen=True)
class Text:
    """A statement with $1, $2, …

    Args:
        query: it.
        parameters: which parameter $1, $2, … are.
        starts: where pieces of it begin in `query`, and where the same begin in the text as it was.
    """

    query: str
    parameters: tuple[Name, ...]
    starts: tuple[tuple[int, int], ...]

    def origin(self, start: int, end: int) -> tuple[int, int]:
        """A span of bytes of `query` as a span of bytes of the text as it was."""
        return self._origin(start), self._origin(end - 1) + 1

    def _origin(self, at: int) -> int:
        there, origin = self.starts[bisect_right(self.starts, (at, 1 << 62)) - 1]
        return at - there + origin


def fit(names: Sequence[Name], params: Params) -> bool:
    """Whether there is a value for each placeholder."""
    if isinstance(params, Mapping):
        return all(isinstance(n, str) and n in params for n in names)
    count = len(params or ())
    return all(isinstance(n, int) and n < count for n in names)


def convert(text: bytes, *, with_parameters: bool) -> Text:
    """Reads a text as psycopg does: without parameters a % is only a %.

    Raises:
        Unreadable: it has what is no placeholder, or positions and names together.
    """
    if not with_parameters:
        return Text(text.decode(), (), ((0, 0),))
    out = bytearray()
    names: list[Name] = []
    starts = [(0, 0)]
    done = 0
    positions = 0
    for match in _PLACEHOLDER.finditer(text):
        out += text[done : match.start()]
        done = match.end()
        name, kind = match.groups()
        if kind == b"%" and name is None:
            out += b"%"
        elif kind in b"sbt":
            key: Name = positions if name is None else name.decode()
            positions += name is None
            if key not in names:
                names.append(key)
            out += b"$%d" % (names.index(key) + 1)
        else:
            raise Unreadable
        starts.append((len(out), done))
    out += text[done:]
    if positions and positions < len(names):
        raise Unreadable
    return Text(out.decode(), tuple(names), tuple(starts))
