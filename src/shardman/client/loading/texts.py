"""Columns of Arrow as text that COPY reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv


def readable(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows, with each column of a type that `encode` can write."""
    columns = [_readable(c) for c in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def encode(batch: pa.RecordBatch) -> bytes:
    """Rows as COPY … (format csv) reads them: what is null is empty, and what is text is in quotes."""
    out = pa.BufferOutputStream()
    options = pa.csv.WriteOptions(include_header=False, quoting_style="needed")
    pa.csv.write_csv(batch, out, options)
    return bytes(out.getvalue())


def line_ends(batch: pa.RecordBatch) -> Any:
    """On which line COPY says that each row of what `encode` writes ends: text may have lines of its own.

    In the first row COPY does not know yet how lines end, and counts carriage returns.
    """
    lines = _count(batch, "\n").to_numpy(zero_copy_only=False).copy()
    lines[:1] = _count(batch.slice(0, 1), "\r").to_numpy(zero_copy_only=False)
    return (lines + 1).cumsum()


def _count(batch: pa.RecordBatch, letter: str) -> Any:
    """How often a letter is in the text of each row."""
    found = pa.array([0] * batch.num_rows, pa.int64())
    for column in batch.columns:
        if pa.types.is_string(column.type):
            own = pc.fill_null(pc.count_substring(column, letter), 0)
            found = pc.add(found, own.cast(pa.int64()))
    return found


def as_strings(column: Any) -> Any:
    """A column that is readable, as strings."""
    return column if pa.types.is_string(column.type) else column.cast(pa.string())


def _readable(column: Any) -> Any:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _readable(column.dictionary_decode())
    if isinstance(kind, pa.UuidType):
        return pa.array([v if v is None else str(v) for v in column.to_pylist()], pa.string())
    if isinstance(kind, pa.BaseExtensionType):
        return _readable(column.storage)
    if pa.types.is_string(kind) or _is_simple(kind):
        return column
    if pa.types.is_null(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    if pa.types.is_float16(kind):
        return column.cast(pa.float32())
    return pa.array(map(_writer(kind), column.to_pylist()), pa.string())


def _is_simple(kind: Any) -> bool:
    """Whether Arrow writes it as PostgreSQL reads it."""
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_float32(kind)
        or pa.types.is_float64(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_date(kind)
        or pa.types.is_time(kind)
        or pa.types.is_timestamp(kind)
    )


def _writer(kind: Any) -> Callable[[Any], str | None]:
    if pa.types.is_struct(kind) or pa.types.is_map(kind):
        write: Callable[[Any], str] = _json
    elif pa.types.is_duration(kind):
        write = _interval
    else:
        write = _plain
    return lambda value: None if value is None else write(value)


def _json(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)


def _interval(value: Any) -> str:
    return f"{value.total_seconds():.6f} seconds"


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    return _array(value) if isinstance(value, list) else str(value)


def _array(values: list[Any]) -> str:
    """An array as PostgreSQL reads it (manual, 8.15.2)."""
    return "{" + ",".join(map(_element, values)) + "}"


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return _array(value)
    text = _json(value) if isinstance(value, dict) else _plain(value)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
