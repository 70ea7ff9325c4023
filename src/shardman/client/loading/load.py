"""Loads rows: each goes to the node that has its partition, all nodes at once, in one transaction.

On a node the rows go through the table itself, so that they arrive wherever their partition is by then. What a
chunk of the source has for one node is one COPY there: an error names the line, and so the row.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import psycopg
import pyarrow as pa
from numpy.typing import NDArray

from shardman.client.loading.driver import Driver
from shardman.client.loading.keys import Keys
from shardman.client.loading.rejects import Rejects
from shardman.client.loading.sending import Failure, Piece, Senders
from shardman.client.loading.sources import Chunk, Csv, Opener, Source
from shardman.client.loading.target import find
from shardman.client.routing.picture import HERE

OnProgress: TypeAlias = "Callable[[Progress], None]"


@dataclass(frozen=True)
class Progress:
    """How far it is.

    Args:
        rows: that are sent.
        bytes: of the sources that are read.
        size: of all sources in bytes, where it is known.
    """

    rows: int
    bytes: int
    size: int | None


@dataclass
class Loaded:
    """What was loaded.

    Args:
        rows: how many.
        rejected: how many were put aside.
        committed: how many rows of the sources are done with, when batches are committed by themselves.
        through: why rows went through one node; empty when they went straight to their owners.
    """

    rows: int = 0
    rejected: int = 0
    committed: int = 0
    through: str = ""


@dataclass(frozen=True)
class Wishes:
    """How rows are loaded.

    Args:
        columns: of the source, where it does not name them, or names them otherwise.
        format: of CSV.
        batch_rows: how many rows are committed at once; None: all of them.
        skip: how many rows, of all sources, are left out at the beginning.
        rejects: the file for bad rows.
        max_rejects: how many of them are one too many.
        progress: is told how far it is.
    """

    columns: Sequence[str] | None = None
    format: Csv = field(default_factory=Csv)
    batch_rows: int | None = None
    skip: int = 0
    rejects: str | os.PathLike[str] | None = None
    max_rejects: int = 1000
    progress: OnProgress = lambda _progress: None


def load(db: Driver, relation: str, sources: Sequence[Any], wishes: Wishes) -> Loaded:
    """Loads rows.

    Args:
        relation: the table, as SQL has its name.
        sources: see `Opener.open`.

    Raises:
        psycopg.Error: a row is wrong (``row`` is its number then), or what else a server says; nothing was
            loaded, but for batches that are committed.
    """
    with Rejects(wishes.rejects, wishes.max_rejects) as rejects:
        return _Loading(db, relation, rejects, wishes).run(sources)


class _Loading:
    def __init__(self, db: Driver, relation: str, rejects: Rejects, wishes: Wishes) -> None:
        self.db = db
        self.relation = relation
        self.rejects = rejects
        self.wishes = wishes
        self.done = Loaded()
        self.look()

    def look(self) -> None:
        """Finds out what the table is, and where its partitions are."""
        self.target = find(self.db, self.relation)
        self.keys: Keys | None = None
        if self.target.table is not None and not self.target.problem:
            self.keys = Keys(self.target, lambda: self.db.drive(self.db.router.open_beside()))

    def run(self, sources: Sequence[Any]) -> Loaded:
        opened = [self._open(s) for s in sources]
        chunks = _without(self._chunks(opened), self.wishes.skip)
        self.done.committed = self.wishes.skip
        try:
            if self.wishes.batch_rows is None:
                self._transaction(chunks)
            else:
                self.db.router.need_no_transaction()
                for batch in _batches(chunks, self.wishes.batch_rows):
                    self._transaction(batch)
                    # Partitions may have moved meanwhile.
                    self._close()
                    self.look()
        except psycopg.Error as error:
            if self.done.committed:
                error.add_note(
                    f"shardman: the first {self.done.committed} rows are done with: go on behind them with"
                    f" skip={self.done.committed}, or --skip {self.done.committed}"
                )
            raise
        finally:
            self._close()
        return self.done

    def _close(self) -> None:
        if self.keys is not None:
            self.keys.close()

    def _open(self, what: Any) -> Source:
        columns = list(self.wishes.columns or self.target.columns)
        opener = Opener(
            columns,
            self.wishes.columns is not None,
            self.wishes.format,
            self.rejects.take,
            self.db.router.sessions[HERE],
        )
        source = opener.open(what)
        self.target.check(source.columns, source.name)
        return source

    def _chunks(self, sources: Sequence[Source]) -> Iterator[Chunk]:
        sizes = [s.size for s in sources]
        size = None if None in sizes else sum(s or 0 for s in sizes)
        before, rows = 0, 0
        for source in sources:
            for chunk in source.chunks():
                yield chunk
                rows += chunk.rows.num_rows
                self.wishes.progress(Progress(rows, before + source.position(), size))
            before += source.size or 0

    def _transaction(self, chunks: Iterator[Chunk]) -> None:
        """Loads, and commits, or is a part of the transaction that is open."""
        rows = 0
        with self.db.transaction():
            sessions = self._sessions()
            try:
                with Senders(sessions, self.rejects) as senders:
                    for chunk in chunks:
                        self._send(senders, chunk)
                        rows += chunk.rows.num_rows
            except Failure as failure:
                self.db.router.lose(failure.session)
                if isinstance(failure.error, psycopg.Error):
                    raise self.db.router.told(failure.error, failure.node) from None
                raise failure.error from None
        self.done.rows += sum(s.sent for s in senders.by_node.values())
        self.done.rejected = self.rejects.count
        if self.wishes.batch_rows is not None:
            self.done.committed += rows

    def _sessions(self) -> Mapping[str, Any]:
        """The owners' sessions; or, where rows cannot be sent to those, the one through which they go."""
        router = self.db.router
        self.done.through = self.target.problem
        if self.keys is not None:
            nodes = list(dict.fromkeys(p.node for p in self.keys.table.parts))
            found = self.db.drive(router.take_in(nodes))
            if found is not None:
                return found  # type: ignore[no-any-return]
            self.done.through = "its nodes cannot all have a part of this transaction"
        router.need_one_node(f"{self.target.name} is loaded through a node: {self.done.through}")
        node = router.bound() or HERE
        session = self.db.drive(router.session(node))
        self.db.drive(router.begin(session, node))
        router.goes_through(node)
        return {node: session}

    def _send(self, senders: Senders, chunk: Chunk) -> None:
        rows = chunk.rows
        nodes = list(senders.by_node)
        straight = self.keys is not None and not self.done.through
        if straight:
            assert self.keys is not None
            rows = self.keys.complete(rows)
        where = self._places(rows, nodes) if straight else np.zeros(rows.num_rows, np.int64)
        statement = self.target.copy(rows.schema.names)
        for number, node in enumerate(nodes):
            own = np.flatnonzero(where == number)
            if len(own):
                piece = Piece(self.target.name, statement, chunk, rows.take(pa.array(own)), own)
                senders.put(node, piece)

    def _places(self, rows: pa.RecordBatch, nodes: list[str]) -> NDArray[np.int64]:
        """For each row which of the nodes has it; a key that cannot be read is for the first one to refuse."""
        assert self.keys is not None
        places = np.array([*(nodes.index(p.node) for p in self.keys.table.parts), 0])
        found: NDArray[np.int64] = places[self.keys.partitions(rows)]
        return found


def _without(chunks: Iterator[Chunk], count: int) -> Iterator[Chunk]:
    """All rows but the first ones."""
    for chunk in chunks:
        left = chunk.rows.num_rows - count
        if left > 0:
            yield (
                Chunk(chunk.rows.slice(count), chunk.first + count, chunk.source)
                if count
                else chunk
            )
            count = 0
        else:
            count = -left


def _batches(chunks: Iterator[Chunk], rows: int) -> Iterator[Iterator[Chunk]]:
    """Chunks in groups that have about so many rows, each to be used up before the next."""

    def group(first: Chunk) -> Iterator[Chunk]:
        have = 0
        for chunk in chain([first], chunks):
            yield chunk
            have += chunk.rows.num_rows
            if have >= rows:
                return

    for first in chunks:
        yield group(first)
