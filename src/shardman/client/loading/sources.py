"""What is loaded: files, frames, rows of Python, as batches of Arrow."""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from psycopg import errors
from psycopg.adapt import PyFormat, Transformer

from shardman.client.loading.rejects import BadRow
from shardman.client.loading.texts import readable

#: What is read, and sent, at once: enough to keep a server at work, little enough to hold several of.
_BLOCK_BYTES = 1 << 20
_ROWS = 1 << 15

#: By suffix.
COMPRESSION = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}
PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class Csv:
    """How CSV is written; the words are those of COPY.

    Args:
        header: the first line has the columns' names.
        null: what stands for null; in quotes it is text.
        block_bytes: what is read at once, at least a row.
    """

    header: bool = True
    delimiter: str = ","
    quote: str = '"'
    null: str = ""
    encoding: str = "utf8"
    block_bytes: int = _BLOCK_BYTES

    def __post_init__(self) -> None:
        """
        Raises:
            InvalidParameterValue: an option has no sensible value.
        """
        for name, value in (("delimiter", self.delimiter), ("quote", self.quote)):
            if len(value.encode()) != 1 or value in "\r\n":
                raise errors.InvalidParameterValue(
                    f"the {name} of CSV is one ASCII character, not {value!r}"
                )
        if self.delimiter == self.quote:
            raise errors.InvalidParameterValue("the delimiter and the quote of CSV are the same")
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            raise errors.InvalidParameterValue(f"there is no encoding {self.encoding}") from None


@dataclass(frozen=True)
class Chunk:
    """Rows that are sent together.

    Args:
        first: how many rows of the source stand before.
        skipped: rows of the source, by number, that could not be read and were left out.
    """

    rows: pa.RecordBatch
    first: int
    source: Source

    def number(self, row: int) -> int:
        """Which row of the source one of these is; the first is 1."""
        number = self.first + row + 1
        for left_out in self.source.left_out:
            if left_out <= number:
                number += 1
        return number


@dataclass
class Source:
    """One file, frame or iterable.

    Args:
        columns: names of its columns, in its order.
        batches: its rows.
        size: in bytes, where it is known.
        position: how many of them are read.
        left_out: numbers of rows that could not be read, in their order.
    """

    name: str
    columns: Sequence[str]
    batches: Iterable[pa.RecordBatch]
    size: int | None = None
    position: Callable[[], int] = lambda: 0
    left_out: list[int] = field(default_factory=list)

    def chunks(self) -> Iterator[Chunk]:
        """Its rows, as COPY reads them.

        Raises:
            BadCopyFileFormat: they cannot be read.
        """
        first = 0
        try:
            for batch in self.batches:
                for begin in range(0, batch.num_rows, _ROWS):
                    rows = batch.slice(begin, _ROWS)
                    yield Chunk(readable(rows), first, self)
                    first += rows.num_rows
        except (pa.ArrowException, UnicodeError, OSError) as error:
            # Also of a compressed file that ends too early: it is an OSError that names no file.
            raise errors.BadCopyFileFormat(
                f"{self.name} cannot be read: {_in_words(error)}"
            ) from None


def _in_words(error: Exception) -> str:
    if "straddles two block boundaries" in str(error):
        return "a row is longer than what is read at once: give more with block_bytes=…, or --block"
    if "new-line character seen in unquoted field" in str(error):
        return "its lines end with \\r alone: let them end with \\n, or \\r\\n"
    return str(error)


#: Says whether to go on without it.
OnBadRow = Callable[[BadRow], bool]


@dataclass(frozen=True)
class Opener:
    """Opens what rows come from.

    Args:
        columns: names of the columns, for what has none.
        own: those were given, and count also where the source has names.
        format: of CSV.
        on_bad_row: for rows of CSV that have another number of fields.
        context: whose adapters write values of Python.
    """

    columns: Sequence[str]
    own: bool
    format: Csv
    on_bad_row: OnBadRow
    context: Any

    def open(self, what: Any) -> Source:
        """Opens a path (CSV, also compressed; Parquet; Arrow), an open file (CSV), a frame, or rows.

        Raises:
            FileNotFoundError: it is not there.
            BadCopyFileFormat: it cannot be read.
            TypeError: it is nothing that has rows.
        """
        if isinstance(what, str | os.PathLike):
            return self._path(Path(what))
        if hasattr(what, "read"):
            return self._csv(str(getattr(what, "name", "the file")), _binary(what))
        if isinstance(what, pa.RecordBatch):
            what = pa.Table.from_batches([what])
        if hasattr(what, "__arrow_c_stream__"):
            return self._arrow(what)
        if isinstance(what, Iterable) and not isinstance(what, bytes | dict):
            first, given = _first(what)
            columns = self._named(list(first)) if isinstance(first, dict) else self.columns
            return Source("the rows", columns, _rows(given, columns, self.context))
        raise TypeError(f"rows cannot be read of a {type(what).__name__}")

    def _arrow(self, what: Any) -> Source:
        name = f"the {type(what).__name__}"
        try:
            reader = pa.RecordBatchReader.from_stream(what)
        except pa.ArrowException as error:
            # A column of pandas that holds values of several kinds.
            raise errors.BadCopyFileFormat(f"{name} cannot be read: {error}") from None
        return Source(name, self._named(reader.schema.names), reader)

    def _named(self, names: Sequence[str]) -> Sequence[str]:
        return self.columns if self.own else names

    def _path(self, path: Path) -> Source:
        kind = path.suffix.lower()
        size = path.stat().st_size
        try:
            if kind in PARQUET:
                file = pa.parquet.ParquetFile(path)
                batches = file.iter_batches(_ROWS)
                return Source(str(path), self._named(file.schema_arrow.names), batches, size)
            if kind in (".arrow", ".feather", ".ipc"):
                reader = pa.ipc.open_file(pa.memory_map(str(path)))
                all_ = (reader.get_batch(i) for i in range(reader.num_record_batches))
                return Source(str(path), self._named(reader.schema.names), all_, size)
        except pa.ArrowException as error:
            raise errors.BadCopyFileFormat(f"{path} cannot be read: {error}") from None
        raw = path.open("rb")
        source = self._csv(str(path), _decompressed(raw, kind))
        source.size, source.position = size, raw.tell
        return source

    def _csv(self, name: str, file: BinaryIO) -> Source:
        buffered = io.BufferedReader(cast("Any", file), _BLOCK_BYTES)
        columns = self.columns
        if self.format.header:
            columns = self._named(_header(name, buffered, self.format))
        source = Source(name, columns, ())
        if buffered.peek(1):
            source.batches = _csv_batches(buffered, source, self.format, self.on_bad_row)
        return source


def _decompressed(raw: BinaryIO, suffix: str) -> BinaryIO:
    if suffix not in COMPRESSION:
        return raw
    return cast("BinaryIO", pa.CompressedInputStream(raw, COMPRESSION[suffix]))


def _binary(file: Any) -> BinaryIO:
    """A file of bytes; one of text is read through its bytes."""
    if isinstance(file, io.TextIOWrapper):
        return cast("BinaryIO", file.buffer)
    if isinstance(file, io.StringIO):
        return io.BytesIO(file.getvalue().encode())
    return cast("BinaryIO", file)


def _header(name: str, file: io.BufferedReader[Any], format_: Csv) -> list[str]:
    """The first record, which may have several lines."""
    raw = iter(lambda: file.readline(format_.block_bytes), b"")
    lines = (line.decode(format_.encoding) for line in raw)
    try:
        found = next(csv.reader(lines, delimiter=format_.delimiter, quotechar=format_.quote), [])
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise errors.BadCopyFileFormat(
            f"the first line of {name} cannot be read: {_in_words(error)}"
        ) from None
    return [c.removeprefix("\ufeff") for c in found]


def _csv_batches(
    file: io.BufferedReader, source: Source, format_: Csv, on_bad_row: OnBadRow
) -> Iterator[pa.RecordBatch]:
    columns = source.columns

    def bad_row(row: Any) -> str:
        number = row.number
        wrong = f"it has {row.actual_columns} fields, and {row.expected_columns} are wanted"
        if not on_bad_row(BadRow(source.name, number, row.text, wrong)):
            return "error"
        source.left_out.append(number)
        return "skip"

    yield from pa.csv.open_csv(
        file,
        # One thread: rows are numbered then, and the servers need the processors more.
        read_options=pa.csv.ReadOptions(
            block_size=format_.block_bytes,
            use_threads=False,
            column_names=columns,
            encoding=format_.encoding,
        ),
        parse_options=pa.csv.ParseOptions(
            delimiter=format_.delimiter,
            quote_char=format_.quote,
            newlines_in_values=True,
            # In a table with one column it is a row.
            ignore_empty_lines=len(columns) > 1,
            invalid_row_handler=bad_row,
        ),
        # What a text means is the server's to say.
        convert_options=pa.csv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.string()),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[format_.null],
        ),
    )


def _rows(rows: Iterable[Any], columns: Sequence[str], context: Any) -> Iterator[pa.RecordBatch]:
    """Rows of Python, as psycopg writes their values."""
    written = Transformer(context)
    formats = [PyFormat.TEXT] * len(columns)
    given = iter(rows)
    while some := list(islice(given, _ROWS)):
        texts = [written.dump_sequence(_values(r, columns), formats) for r in some]
        arrays = [
            pa.array([None if v is None else bytes(v) for v in column], pa.binary()).cast(
                pa.string()
            )
            for column in zip(*texts, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(arrays, names=list(columns))


def _first(rows: Iterable[Any]) -> tuple[Any, Iterable[Any]]:
    """The first row, and all of them."""
    given = iter(rows)
    first = list(islice(given, 1))
    return (first[0] if first else None), chain(first, given)


def _values(row: Any, columns: Sequence[str]) -> Sequence[Any]:
    """The fields of a row.

    Raises:
        BadCopyFileFormat: it has another number of them, or others.
    """
    if isinstance(row, dict):
        row = _by_name(row, columns)
    values = list(row)
    if len(values) != len(columns):
        raise errors.BadCopyFileFormat(
            f"a row has {len(values)} fields, and {len(columns)} are wanted: {row!r:.200}"
        )
    return values


def _by_name(row: dict[str, Any], columns: Sequence[str]) -> Sequence[Any]:
    try:
        return [row[c] for c in columns]
    except KeyError as error:
        raise errors.BadCopyFileFormat(
            f"a row has no {error}: each gives all of {', '.join(columns)}, which columns=[…] may say, or else"
            " the first row"
        ) from None
