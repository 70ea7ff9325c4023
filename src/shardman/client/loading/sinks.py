"""What rows are written to: CSV, or Parquet."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from psycopg import errors

from shardman.client.loading.sources import COMPRESSION, PARQUET, Csv

_TYPES = {
    "smallint": pa.int16(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "real": pa.float32(),
    "double precision": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp without time zone": pa.timestamp("us"),
    "timestamp with time zone": pa.timestamp("us", "UTC"),
}
_NUMERIC = re.compile(r"numeric\((\d+),(\d+)\)")
_DIGITS = 38


class Sink(Protocol):
    """Takes blocks of CSV as COPY writes it, whole rows."""

    def write(self, block: bytes) -> None:
        """Takes a block."""


class CsvSink:
    """A file of CSV."""

    def __init__(self, file: BinaryIO, columns: Sequence[str], *, header: bool) -> None:
        self._file = file
        if header:
            names = (f'"{c.replace(chr(34), chr(34) * 2)}"' for c in columns)
            file.write((",".join(names) + "\n").encode())

    def write(self, block: bytes) -> None:
        self._file.write(block)


class ParquetSink:
    """A file of Parquet. Types that have no kin there are text."""

    def __init__(self, writer: Any, schema: Any) -> None:
        self._writer = writer
        self._options = {
            "read_options": pa.csv.ReadOptions(column_names=schema.names, use_threads=False),
            "parse_options": pa.csv.ParseOptions(
                newlines_in_values=True, ignore_empty_lines=len(schema) > 1
            ),
            "convert_options": pa.csv.ConvertOptions(
                column_types=schema,
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                null_values=[""],
                true_values=["t"],
                false_values=["f"],
            ),
        }

    def write(self, block: bytes) -> None:
        """
        Raises:
            DataException: a value has no place in Parquet, such as the date infinity.
        """
        try:
            self._writer.write_table(pa.csv.read_csv(io.BytesIO(block), **self._options))
        except pa.ArrowException as error:
            raise errors.DataException(f"Parquet cannot hold a value: {error}. Write CSV") from None


@contextmanager
def open_sink(what: Any, types: Mapping[str, str], format_: Csv) -> Iterator[Sink]:
    """Opens what rows are written to; a file that was not written to its end is removed.

    Args:
        what: a path, of Parquet by its suffix; or an open file, for CSV.
        types: of the columns, by name.
    """
    if hasattr(what, "write"):
        yield CsvSink(getattr(what, "buffer", what), list(types), header=format_.header)
        return
    path = Path(what)
    part = path.with_name(path.name + ".part")
    try:
        if path.suffix.lower() in PARQUET:
            columns = schema(types)
            with pa.parquet.ParquetWriter(part, columns) as writer:
                yield ParquetSink(writer, columns)
        else:
            with _compressed(part, path.suffix.lower()) as file:
                yield CsvSink(file, list(types), header=format_.header)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _compressed(path: Path, suffix: str) -> Any:
    kind = COMPRESSION.get(suffix)
    return path.open("wb") if kind is None else pa.CompressedOutputStream(str(path), kind)


def schema(types: Mapping[str, str]) -> Any:
    """The columns of a table in Parquet."""
    return pa.schema([(name, _type(type_)) for name, type_ in types.items()])


def _type(name: str) -> Any:
    bare = re.sub(r"\(\d\)", "", name) if name.startswith("timestamp") else name
    numeric = _NUMERIC.fullmatch(name)
    if numeric is not None and int(numeric[1]) <= _DIGITS:
        return pa.decimal128(int(numeric[1]), int(numeric[2]))
    return _TYPES.get(bare, pa.string())
