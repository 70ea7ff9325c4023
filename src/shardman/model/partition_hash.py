"""In which partition a row lies: PostgreSQL's own computation (`satisfies_hash_partition`), for clients.

The extended hash of each column of the key that is not null, under one seed, folded by `hash_combine64`. It is
the same on all versions and machines for the types of `HASHERS`; tests compare it with servers. Other types
are left to the server.
"""

from __future__ import annotations

import datetime as dt
import struct
import uuid
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

_SEED = 0x7A5B22367996DCFD
_SEED_HIGH, _SEED_LOW = _SEED >> 32, _SEED & 0xFFFFFFFF
_M32 = 0xFFFFFFFF
_M64 = 0xFFFFFFFFFFFFFFFF

#: A hash with 64 bits, unsigned, of a value of Python that is not None.
Hasher = Callable[[Any], int]


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    a = ((a - c) & _M32) ^ ((c << 4 | c >> 28) & _M32)
    c = (c + b) & _M32
    b = ((b - a) & _M32) ^ ((a << 6 | a >> 26) & _M32)
    a = (a + c) & _M32
    c = ((c - b) & _M32) ^ ((b << 8 | b >> 24) & _M32)
    b = (b + a) & _M32
    a = ((a - c) & _M32) ^ ((c << 16 | c >> 16) & _M32)
    c = (c + b) & _M32
    b = ((b - a) & _M32) ^ ((a << 19 | a >> 13) & _M32)
    a = (a + c) & _M32
    c = ((c - b) & _M32) ^ ((b << 4 | b >> 28) & _M32)
    b = (b + a) & _M32
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    c = ((c ^ b) - (b << 14 | b >> 18)) & _M32
    a = ((a ^ c) - (c << 11 | c >> 21)) & _M32
    b = ((b ^ a) - (a << 25 | a >> 7)) & _M32
    c = ((c ^ b) - (b << 16 | b >> 16)) & _M32
    a = ((a ^ c) - (c << 4 | c >> 28)) & _M32
    b = ((b ^ a) - (a << 14 | a >> 18)) & _M32
    c = ((c ^ b) - (b << 24 | b >> 8)) & _M32
    return b << 32 | c


def _begin(length: int) -> tuple[int, int, int]:
    start = (0x9E3779B9 + length + 3923095) & _M32
    return _mix((start + _SEED_HIGH) & _M32, (start + _SEED_LOW) & _M32, start)


_UINT32_A, _UINT32_B, _UINT32_C = _begin(4)


def hash_uint32(key: int) -> int:
    """`hash_bytes_uint32_extended`; of a negative number its lower 32 bits."""
    return _final((_UINT32_A + key) & _M32, _UINT32_B, _UINT32_C)


def hash_int(key: int) -> int:
    """Of int2, int4 and int8 alike, which is why they can be compared by their hashes."""
    high = key >> 32 & _M32
    return hash_uint32(key & _M32 ^ (high if key >= 0 else high ^ _M32))


def hash_words(length: int, words: Iterable[tuple[Any, Any, Any]]) -> Any:
    """`hash_bytes_extended`, as a little-endian machine reads.

    Args:
        length: of the value, in bytes.
        words: of 32 bits, in threes; at least one three. They may be arrays of words (of 64 bits each,
            unsigned), one of each value: the result is one, too.
    """
    a, b, c = _begin(length)
    last = None
    for three in words:
        if last is not None:
            x, y, z = last
            a, b, c = _mix((a + x) & _M32, (b + y) & _M32, (c + z) & _M32)
        last = three
    assert last is not None
    x, y, z = last
    return _final((a + x) & _M32, (b + y) & _M32, (c + z) & _M32)


def hash_bytes(key: bytes) -> int:
    """Of bytea."""
    whole = len(key) // 12 * 12
    # The lowest byte of the last word is reserved for the length.
    tail = key[whole : whole + 8].ljust(9, b"\0") + key[whole + 8 :].ljust(3, b"\0")
    return int(hash_words(len(key), struct.iter_unpack("<III", key[:whole] + tail)))


def hash_text(key: str) -> int:
    """Of text, varchar: their bytes in UTF-8, whatever the collation, as long as that is deterministic."""
    return hash_bytes(key.encode())


def hash_bpchar(key: str) -> int:
    """Of char(n): blanks at the end do not count."""
    return hash_bytes(key.rstrip(" ").encode())


def hash_uuid(key: uuid.UUID) -> int:
    """Of uuid."""
    return hash_bytes(key.bytes)


def hash_float(key: float) -> int:
    """Of float4 and float8 alike. Both zeros are one value, and so are all that are not a number."""
    if key == 0:
        return _SEED
    return hash_bytes(struct.pack("<d", key if key == key else float("nan")))


_EPOCH_DAY = dt.date(2000, 1, 1).toordinal()
_EPOCH = dt.datetime(2000, 1, 1)  # noqa: DTZ001 - timestamps without a zone
_EPOCH_UTC = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)


def hash_date(key: dt.date) -> int:
    """Of date: days since 2000."""
    return hash_uint32((key.toordinal() - _EPOCH_DAY) & _M32)


def hash_timestamp(key: dt.datetime) -> int:
    """Of timestamp, without a zone."""
    return hash_int((key - _EPOCH) // _MICROSECOND)


def hash_timestamptz(key: dt.datetime) -> int:
    """Of timestamptz; the value must have a zone."""
    return hash_int((key - _EPOCH_UTC) // _MICROSECOND)


def hash_numeric(key: Decimal | int) -> int:
    """Of numeric: the digits to the base of 10000 without the zeros around them, and where they begin."""
    _, digits, exponent = Decimal(key).as_tuple()
    if not isinstance(exponent, int):
        return _SEED  # neither infinite ones nor NaN have digits
    text = "".join(map(str, digits))
    # Groups of four around the decimal point.
    text += "0" * (exponent % 4)
    exponent -= exponent % 4
    text = "0" * (-len(text) % 4) + text
    groups = [int(text[i : i + 4]) for i in range(0, len(text), 4)]
    weight = len(groups) - 1 + exponent // 4
    while groups and groups[0] == 0:
        del groups[0]
        weight -= 1
    while groups and groups[-1] == 0:
        del groups[-1]
    if not groups:
        return _SEED - 1
    return hash_bytes(struct.pack(f"<{len(groups)}h", *groups)) ^ (weight & _M64)


#: By the name that format_type gives.
HASHERS: dict[str, Hasher] = {
    "smallint": hash_int,
    "integer": hash_int,
    "bigint": hash_int,
    "boolean": hash_uint32,
    "text": hash_text,
    "character varying": hash_text,
    "character": hash_bpchar,
    "bytea": hash_bytes,
    "uuid": hash_uuid,
    "date": hash_date,
    "timestamp without time zone": hash_timestamp,
    "timestamp with time zone": hash_timestamptz,
    "numeric": hash_numeric,
    "real": hash_float,
    "double precision": hash_float,
}


def combine(one: int, other: int) -> int:
    """`hash_combine64`."""
    return one ^ (other + 0x49A0F4DD15E5A8E3 + (one << 54) + (one >> 7)) & _M64


def partition_number(hashes: Sequence[int | None], modulus: int) -> int:
    """The number of the partition.

    Args:
        hashes: of the columns of the key, in its order; None for a null.
        modulus: how many partitions there are.
    """
    row = 0
    for each in hashes:
        if each is not None:
            row = combine(row, each)
    return row % modulus
