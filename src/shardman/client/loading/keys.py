"""In which partitions the rows of a batch are.

What is written as every version of the server reads it alike is read here. All else the server is asked for:
each value once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from psycopg import errors, sql

from shardman.client.loading.target import Target
from shardman.client.loading.texts import as_strings
from shardman.client.loading.vectors import (
    Hashes,
    hash_ints,
    hash_strings,
    hash_uuids,
    partition_numbers,
)
from shardman.client.routing.picture import Column
from shardman.sql.loader import queries

_INTEGERS = ("smallint", "integer", "bigint")
_TEXTS = ("text", "character varying")
_UUID_LENGTH = 36


class Keys:
    """Reads the keys of rows for one table.

    Args:
        open_session: a session to ask the server with, opened when it is needed first.
    """

    def __init__(self, target: Target, open_session: Callable[[], Any]) -> None:
        assert target.table is not None
        self.target = target
        self.table = target.table
        self._open = open_session
        self._session: Any = None

    def close(self) -> None:
        """Closes the session."""
        if self._session is not None:
            self._session.close()

    def complete(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with all columns of the key: one that is missing has its default."""
        for column in self.table.key:
            if column.name not in rows.schema.names:
                rows = rows.append_column(column.name, self._default(column.name, rows.num_rows))
        return rows

    def _default(self, name: str, count: int) -> Any:
        """
        Raises:
            NotNullViolation: the column has none.
        """
        default = self.target.defaults.get(name)
        if default is None:
            raise errors.NotNullViolation(
                f'the rows have no column "{name}", which says where they belong, and it has no default:'
                " give them one"
            )
        # It is of the catalog, and what the table's owner wrote is executed as whoever loads, as ever.
        text = sql.SQL(queries("loading")["defaults"]).format(sql.SQL(default))
        return pa.array([v for (v,) in self._ask(text, (count,))], pa.string())

    def partitions(self, rows: pa.RecordBatch) -> NDArray[np.int64]:
        """The number of the partition of each row; -1 where the server does not understand a key."""
        columns = []
        understood: NDArray[np.bool_] = np.ones(rows.num_rows, np.bool_)
        for column in self.table.key:
            values = rows.column(column.name)
            hashes, known = self._hashes(column, values)
            columns.append((hashes, values.is_valid().to_numpy(zero_copy_only=False)))
            understood &= known
        numbers = partition_numbers(columns, len(self.table.parts), rows.num_rows)
        return np.where(understood, numbers, -1)

    def _hashes(self, column: Column, values: Any) -> tuple[Hashes, Any]:
        """Of a column; and which of them are known."""
        found = None
        if column.type in _INTEGERS:
            found = _of_integers(values)
        elif column.type in _TEXTS:
            found = _of_texts(as_strings(values), column.length)
        elif column.type == "uuid":
            found = _of_uuids(as_strings(values))
        return self._asked(column, as_strings(values)) if found is None else (found, True)

    def _asked(self, column: Column, values: Any) -> tuple[Hashes, Any]:
        coded = values.dictionary_encode()
        type_ = sql.SQL(self.target.columns[column.name])
        text = sql.SQL(queries("loading")["hashes"]).format(type_)
        answers = [*self._answers(text, coded.dictionary.to_pylist()), 0]
        # What is null counts as the last one.
        places = pc.fill_null(coded.indices, len(answers) - 1).to_numpy()
        hashes = np.array([a or 0 for a in answers], np.int64).view(np.uint64)
        return hashes[places], np.array([a is not None for a in answers])[places]

    def _answers(self, text: sql.Composed, values: list[str]) -> list[int | None]:
        """What the server says of each; None where it does not understand it."""
        try:
            return [h for (h,) in self._ask(text, (values,))]
        except errors.DataError:
            if len(values) == 1:
                return [None]
            half = len(values) // 2
            return self._answers(text, values[:half]) + self._answers(text, values[half:])

    def _ask(self, text: sql.Composed, params: Any) -> list[tuple[Any, ...]]:
        if self._session is None:
            self._session = self._open()
        with self._session.cursor(binary=True) as cursor:
            cursor.execute(text, params)
            return list(cursor.fetchall())


def _of_integers(values: Any) -> Hashes | None:
    try:
        numbers = pc.fill_null(values.cast(pa.int64()), 0)
    except pa.ArrowInvalid:
        return None
    return hash_ints(numbers.to_numpy(zero_copy_only=False))


def _of_texts(values: Any, length: int) -> Hashes | None:
    data, ends = _bytes(values)
    # Blanks that do not fit are cut. A length has four bytes before it.
    if length != -1 and len(ends) > 1 and np.diff(ends).max() > length - 4:
        return None
    return hash_strings(data, ends)


def _of_uuids(values: Any) -> Hashes | None:
    valid = values.is_valid().to_numpy(zero_copy_only=False)
    data, ends = _bytes(values.drop_null())
    if (np.diff(ends) != _UUID_LENGTH).any():
        return None
    found = hash_uuids(data.reshape(-1, _UUID_LENGTH))
    if found is None:
        return None
    all_: Hashes = np.zeros(len(valid), np.uint64)
    all_[valid] = found
    return all_


def _bytes(values: Any) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The bytes of strings, of null none; and where the first begins, and where each ends."""
    values = pc.fill_null(values, "")
    _, offsets, data = values.buffers()
    every = np.frombuffer(offsets, np.int32)
    ends = every[values.offset : values.offset + len(values) + 1].astype(np.int64)
    if data is None:
        return np.zeros(0, np.uint8), ends
    return np.frombuffer(data, np.uint8)[ends[0] : ends[-1]], ends - ends[:1]
