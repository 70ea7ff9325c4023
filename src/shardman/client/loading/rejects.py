"""Rows that are wrong: they end the loading, or are put aside in a file."""

from __future__ import annotations

import csv
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self


@dataclass(frozen=True)
class BadRow:
    """A row that a server, or the reader, did not take.

    Args:
        source: where it comes from.
        number: which of the source's rows it is; the first is 1.
        content: its fields, as CSV.
        wrong: what is wrong with it.
    """

    source: str
    number: int
    content: str
    wrong: str

    def __str__(self) -> str:
        return f"row {self.number} of {self.source}, {self.content:.200}: {self.wrong}"


class Rejects:
    """A file of bad rows: CSV with source, row, error and content; without a path none are taken. A context.

    Args:
        limit: how many are taken.
    """

    def __init__(self, path: str | os.PathLike[str] | None, limit: int) -> None:
        self.wanted = path is not None
        self.limit = limit
        self.count = 0
        self._path = path
        self._file: IO[str] | None = None
        self._writer: Any = None
        self._lock = threading.Lock()

    def take(self, row: BadRow) -> bool:
        """Puts a row aside; False where it is not to be."""
        with self._lock:
            if self._writer is None or self.count >= self.limit:
                return False
            self._writer.writerow((row.source, row.number, row.wrong, row.content))
            self.count += 1
            return True

    def __enter__(self) -> Self:
        if self._path is not None:
            # What a loading that was cut short has put there stays.
            self._file = Path(self._path).open("a", newline="", encoding="utf-8")
            self._writer = csv.writer(self._file)
            if self._file.tell() == 0:
                self._writer.writerow(("source", "row", "error", "content"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
