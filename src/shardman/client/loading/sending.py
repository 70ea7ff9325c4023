"""Rows on their way: a thread for each node, which sends what it is given, one piece after the other."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from queue import Full, Queue
from typing import Any, Self

import numpy as np
import psycopg
import pyarrow as pa
from numpy.typing import NDArray
from psycopg import errors, sql

from shardman.client.loading.rejects import BadRow, Rejects
from shardman.client.loading.sources import Chunk
from shardman.client.loading.texts import encode, line_ends
from shardman.client.together import Worker, interrupt

#: Pieces that wait for a node: one, while another is under way.
_WAITING = 1


@dataclass(frozen=True)
class Piece:
    """Those rows of a chunk that go to one node.

    Args:
        table: its name.
        statement: the COPY into it.
        places: which of the chunk's rows they are.
    """

    table: str
    statement: sql.Composed
    chunk: Chunk
    rows: pa.RecordBatch
    places: NDArray[np.int64]

    def row(self, line: int) -> int:
        """Which of its rows a line of what is sent belongs to."""
        return int(np.searchsorted(line_ends(self.rows), line))

    def bad_row(self, error: psycopg.Error) -> tuple[int, BadRow] | None:
        """The row that an error of the server is about."""
        line = _line(error, self.table)
        if line is None:
            return None
        row = self.row(line)
        if row >= self.rows.num_rows:
            return None
        content = encode(self.rows.slice(row, 1)).decode().rstrip("\n")
        number = self.chunk.number(int(self.places[row]))
        wrong = error.diag.message_primary or str(error)
        if error.diag.message_detail:
            wrong += f": {error.diag.message_detail}"
        return row, BadRow(self.chunk.source.name, number, content, wrong)

    def without(self, row: int) -> Piece:
        """All but one of its rows."""
        keep = np.arange(self.rows.num_rows) != row
        return replace(self, rows=self.rows.filter(pa.array(keep)), places=self.places[keep])


@dataclass
class Sender:
    """Sends to one node."""

    node: str
    session: Any
    rejects: Rejects
    sent: int = 0
    error: BaseException | None = None
    queue: Queue[Piece | None] = field(default_factory=lambda: Queue(_WAITING))

    def work(self) -> None:
        """Sends until there is nothing more, or it fails."""
        while self.error is None and (piece := self.queue.get()) is not None:
            try:
                self._send(piece)
            except BaseException as error:  # noqa: BLE001 - who gives the pieces raises it
                self.error = error

    def _send(self, piece: Piece) -> None:
        while piece.rows.num_rows:
            try:
                with self.session.transaction() if self.rejects.wanted else nullcontext():
                    self._copy(piece)
            except (errors.DataError, errors.IntegrityError) as error:
                found = piece.bad_row(error)
                if found is None:
                    raise
                row, bad = found
                if not self.rejects.take(bad):
                    error.add_note(f"shardman: {bad}")
                    error.row = bad.number  # type: ignore[union-attr]
                    raise
                piece = piece.without(row)
            else:
                self.sent += piece.rows.num_rows
                return

    def _copy(self, piece: Piece) -> None:
        with self.session.cursor() as cursor, cursor.copy(piece.statement) as copy:
            copy.write(encode(piece.rows))


class Senders:
    """One for each node; a context, which ends when all has arrived.

    Args:
        sessions: by node, in transactions that are open.
    """

    def __init__(self, sessions: Mapping[str, Any], rejects: Rejects) -> None:
        self.by_node = {n: Sender(n, s, rejects) for n, s in sessions.items()}
        self._threads = [Worker(s.work, f"copy to {n}") for n, s in self.by_node.items()]

    def put(self, node: str, piece: Piece) -> None:
        """Gives a node rows, and waits while it has enough of them.

        Raises:
            psycopg.Error: some could not be sent.
        """
        while True:
            self.raise_error()
            try:
                return self.by_node[node].queue.put(piece, timeout=1)
            except Full:
                continue

    def raise_error(self) -> None:
        """Raises what went wrong with any of them, which has the node in it."""
        for sender in self.by_node.values():
            if sender.error is not None:
                raise Failure(sender.node, sender.session, sender.error)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        for sender, thread in zip(self.by_node.values(), self._threads, strict=True):
            if kind is None or issubclass(kind, Failure):
                _finish(sender, thread)
            else:
                sender.error = sender.error or errors.QueryCanceled("the loading was cancelled")
                with suppress(Full):
                    sender.queue.put_nowait(None)
                interrupt(sender.session, thread)
        if kind is None:
            self.raise_error()


def _finish(sender: Sender, thread: Worker) -> None:
    """Waits until all that it was given has arrived, or it has failed."""
    while not thread.wait(0):
        try:
            sender.queue.put(None, timeout=1)
            break
        except Full:
            continue
    thread.wait()


class Failure(Exception):
    """An error on a node."""

    def __init__(self, node: str, session: Any, error: BaseException) -> None:
        self.node = node
        self.session = session
        self.error = error


def _line(error: psycopg.Error, table: str) -> int | None:
    """The line that COPY names in the context of an error, in whatever language."""
    begin = f"COPY {table}, "
    found = None
    for line in (error.diag.context or "").splitlines():
        if line.startswith(begin):
            words = line.removeprefix(begin).replace(",", " ").replace(":", " ").split()
            found = next((int(w) for w in words if w.isdigit()), found)
    return found
