"""The partition hash of many values at once: `shardman.model.partition_hash` on arrays of NumPy.

Arrays hold 64 bits, unsigned, as that module's functions want them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shardman.model.partition_hash import combine, hash_uint32, hash_words

Hashes = NDArray[np.uint64]

# They work on arrays as on numbers.
_hash_uint32: Any = hash_uint32
_combine: Any = combine

_M32 = np.uint64(0xFFFFFFFF)
_DASHES = (8, 13, 18, 23)
_HEX = np.full(256, 255, np.uint8)
for _value, _digits in enumerate(
    ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", *map(str.__add__, "abcdef", "ABCDEF")]
):
    _HEX[list(_digits.encode())] = _value


def hash_ints(keys: NDArray[np.int64]) -> Hashes:
    """Of int2, int4, int8."""
    bits = keys.view(np.uint64)
    high = bits >> np.uint64(32)
    hashes: Hashes = _hash_uint32((bits & _M32) ^ np.where(keys >= 0, high, high ^ _M32))
    return hashes


def hash_strings(data: NDArray[np.uint8], ends: NDArray[np.int64]) -> Hashes:
    """Of text, varchar, bytea.

    Args:
        data: all bytes, one value behind the other.
        ends: where the first begins, and where each ends.
    """
    found: Hashes = np.zeros(len(ends) - 1, np.uint64)
    lengths = np.diff(ends)
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        places = ends[rows][:, None] + np.arange(length)
        found[rows] = _hash_matrix(data[places])
    return found


def _hash_matrix(values: NDArray[np.uint8]) -> Hashes:
    """Of values that have one length, each a row."""
    count, length = values.shape
    whole = length // 12 * 12
    padded = np.zeros((count, whole + 12), np.uint8)
    padded[:, : min(length, whole + 8)] = values[:, : whole + 8]
    # The lowest byte of the last word is reserved for the length.
    padded[:, whole + 9 : length + 1] = values[:, whole + 8 :]
    words = padded.view("<u4").astype(np.uint64)
    threes = [(words[:, i], words[:, i + 1], words[:, i + 2]) for i in range(0, words.shape[1], 3)]
    hashes: Hashes = hash_words(length, threes)
    return hashes


def hash_uuids(texts: NDArray[np.uint8]) -> Hashes | None:
    """Of uuid, as it is written with dashes; None where one is written in another way.

    Args:
        texts: 36 bytes of each.
    """
    if not (texts[:, _DASHES] == ord("-")).all():
        return None
    digits = _HEX[np.delete(texts, _DASHES, axis=1)]
    if (digits == 255).any():
        return None
    return _hash_matrix(digits[:, ::2] << np.uint8(4) | digits[:, 1::2])


def partition_numbers(
    columns: Sequence[tuple[Hashes, Any]], modulus: int, count: int
) -> NDArray[np.int64]:
    """The partitions of rows.

    Args:
        columns: of each column of the key, in its order, the hashes and which of the rows are not null.
        modulus: how many partitions there are.
        count: of rows.
    """
    row: Hashes = np.zeros(count, np.uint64)
    for hashes, valid in columns:
        row = np.where(valid, _combine(row, hashes), row)
    return (row % np.uint64(modulus)).astype(np.int64)
