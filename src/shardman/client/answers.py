"""Answers of nodes on their way into the statement that puts them together: as they came, as binary arrays."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from psycopg.adapt import Dumper
from psycopg.pq import Format

from shardman.client.routing.divisible import ANSWER_TYPES

_LENGTH = struct.Struct("!i")


class Raw:
    """A value as the server has it on the wire."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class RawDumper(Dumper):
    """Sends it as it is; the statement says its type."""

    format = Format.BINARY

    def dump(self, obj: Raw) -> bytes:
        """The value."""
        return obj.data


def types(results: Sequence[Any]) -> list[str] | None:
    """The types of the columns of answers; None where one is not known, or nodes do not agree."""
    found = [tuple(r.ftype(i) for i in range(r.nfields)) for r in results]
    if len(set(found)) != 1 or not all(oid in ANSWER_TYPES for oid in found[0]):
        return None
    return [ANSWER_TYPES[oid] for oid in found[0]]


def arrays(results: Sequence[Any]) -> list[Raw]:
    """All answers, an array for each column."""
    return [
        Raw(
            _array(
                results[0].ftype(i), [r.get_value(n, i) for r in results for n in range(r.ntuples)]
            )
        )
        for i in range(results[0].nfields)
    ]


def _array(oid: int, values: Sequence[bytes | None]) -> bytes:
    if not values:
        return struct.pack("!iiI", 0, 0, oid)
    pieces = [struct.pack("!iiIii", 1, int(None in values), oid, len(values), 1)]
    for value in values:
        pieces += [b"\xff\xff\xff\xff"] if value is None else [_LENGTH.pack(len(value)), value]
    return b"".join(pieces)
