"""Writes rows out: from all nodes at once, each from a snapshot of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psycopg
from psycopg import sql

from shardman.client.loading.driver import Driver
from shardman.client.loading.sending import Failure
from shardman.client.loading.sinks import Sink, open_sink
from shardman.client.loading.sources import Csv
from shardman.client.loading.target import Target, find
from shardman.client.routing.picture import HERE
from shardman.client.together import Worker, interrupt
from shardman.sql.loader import queries

#: What is kept of a node's rows before it is written.
_BLOCK_BYTES = 1 << 20


@dataclass
class Unloaded:
    """What was written.

    Args:
        rows: how many.
        bytes: as CSV.
    """

    rows: int = 0
    bytes: int = 0


@dataclass
class _Writer:
    """Rows of all nodes on their way into one file."""

    sink: Sink
    progress: Callable[[Unloaded], None]
    done: Unloaded = field(default_factory=Unloaded)
    lock: threading.Lock = field(default_factory=threading.Lock)
    error: Failure | None = None

    def write(self, rows: int, block: bytes) -> None:
        with self.lock:
            self.sink.write(block)
            self.done.rows += rows
            self.done.bytes += len(block)
            self.progress(self.done)


def unload(
    db: Driver,
    relation: str,
    what: Any,
    columns: Sequence[str] | None,
    format_: Csv,
    progress: Callable[[Unloaded], None],
) -> Unloaded:
    """Writes a table out.

    Args:
        relation: as SQL has its name.
        what: a path, or an open file.
        columns: those that are written; None: all but generated ones.

    Raises:
        psycopg.Error: a server's error; a file that was named is as it was before.
    """
    target = find(db, relation)
    wanted = list(columns or target.columns)
    target.check(wanted, "the list")
    with (
        open_sink(what, {c: target.columns[c] for c in wanted}, format_) as sink,
        _transaction(db, target) as sessions,
    ):
        writer = _Writer(sink, progress)
        chosen = sql.SQL(", ").join(map(sql.Identifier, wanted))
        _run(sessions, _tables(target, sessions), chosen, writer)
        if writer.error is not None:
            db.router.lose(writer.error.session)
            if isinstance(writer.error.error, psycopg.Error):
                raise db.router.told(writer.error.error, writer.error.node) from None
            raise writer.error.error
    return writer.done


def _run(
    sessions: dict[str, Any],
    tables: dict[str, list[sql.Composable]],
    columns: sql.Composed,
    writer: _Writer,
) -> None:
    workers = [
        Worker(partial(_read, node, session, tables[node], columns, writer))
        for node, session in sessions.items()
    ]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            worker.wait()
    except BaseException:
        writer.error = Failure("", None, psycopg.errors.QueryCanceled("it was cancelled"))
        for worker, session in zip(workers, sessions.values(), strict=True):
            interrupt(session, worker)
        raise


@contextmanager
def _transaction(db: Driver, target: Target) -> Iterator[dict[str, Any]]:
    """The sessions on the owners, in a transaction; without a picture of partitions the one here."""
    router = db.router
    begins = not (router.parts() or router.blocks)
    with db.transaction():
        nodes = [HERE]
        if target.table is not None and not target.problem:
            nodes = list(dict.fromkeys(p.node for p in target.table.parts))
        sessions = db.drive(router.take_in(nodes, writes=False))
        if sessions is None:
            sessions = {HERE: db.drive(router.on_here())}
        if begins:
            for session in sessions.values():
                session.execute(queries("loading")["one_snapshot"])
        yield sessions


def _tables(target: Target, sessions: dict[str, Any]) -> dict[str, list[sql.Composable]]:
    """What is read on which node. A partition that has moved is reached from there, too."""
    if target.table is None or target.problem or len(sessions) == 1:
        return {node: [sql.Identifier(target.schema, target.name)] for node in sessions}
    return {
        node: [_verbatim(p.name) for p in target.table.parts if p.node == node] for node in sessions
    }


def _verbatim(name: str) -> sql.SQL:
    """A name that is in quotes already."""
    return sql.SQL(name)


def _read(
    node: str,
    session: Any,
    tables: Sequence[sql.Composable],
    columns: sql.Composed,
    writer: _Writer,
) -> None:
    try:
        for table in tables:
            text = sql.SQL(queries("loading")["copy_out"]).format(columns, table)
            for rows, block in _blocks(session, text):
                if writer.error is not None:
                    return
                writer.write(rows, block)
    except BaseException as error:  # noqa: BLE001 - who waits for it raises it
        writer.error = writer.error or Failure(node, session, error)


def _blocks(session: Any, text: sql.Composed) -> Iterator[tuple[int, bytes]]:
    """Rows, each whole, in blocks of some size."""
    have: list[bytes] = []
    size = 0
    with session.cursor() as cursor, cursor.copy(text) as copy:
        for row in copy:
            have.append(bytes(row))
            size += len(row)
            if size >= _BLOCK_BYTES:
                yield len(have), b"".join(have)
                have, size = [], 0
    if have:
        yield len(have), b"".join(have)
