"""Carries a COPY from one server to another as fast as libpq allows.

COPY TO hands over one message for each row. The pump works on libpq's own calls, in a thread, and
gathers rows into blocks, so that Python's cost for each row is two calls and no allocation of ours.
"""

from __future__ import annotations

import select
import threading
from dataclasses import dataclass, field

import psycopg
from psycopg import pq

BLOCK_BYTES = 256 * 1024


@dataclass
class Pump:
    """One COPY on its way. `bytes_done` and `rows_done` may be read while it runs."""

    source: pq.abc.PGconn
    target: pq.abc.PGconn
    bytes_done: int = 0
    rows_done: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self, copy_out: bytes, copy_in: bytes) -> None:
        """Runs both statements and moves what the first gives to the second. Blocks.

        Raises:
            psycopg.Error: either side failed, or `stopped` was set.
        """
        _start(self.target, copy_in, pq.ExecStatus.COPY_IN)
        try:
            _start(self.source, copy_out, pq.ExecStatus.COPY_OUT)
            self._carry()
        except BaseException as error:
            _end_copy_in(self.target, str(error).encode()[:200])
            raise
        _end_copy_in(self.target, None)

    def _carry(self) -> None:
        block: list[memoryview] = []
        size = 0
        get = self.source.get_copy_data
        while True:
            length, data = get(1)
            if length > 0:
                block.append(data)
                size += length
                if size < BLOCK_BYTES:
                    continue
            if block and (length <= 0 or size >= BLOCK_BYTES):
                self._put(b"".join(block), len(block))
                block, size = [], 0
            if length == 0:
                self._await_source()
            elif length < 0:
                break
        _finish(self.source)

    def _put(self, block: bytes, rows: int) -> None:
        if self.stopped.is_set():
            raise psycopg.OperationalError("the copy was stopped")
        while self.target.put_copy_data(block) == 0:
            _flush(self.target)
        _flush(self.target)
        self.bytes_done += len(block)
        self.rows_done += rows

    def _await_source(self) -> None:
        while self.source.is_busy():
            readable, _, _ = select.select([self.source.socket], [], [], 0.5)
            if self.stopped.is_set():
                raise psycopg.OperationalError("the copy was stopped")
            if not readable:
                continue
            self.source.consume_input()
            return
        self.source.consume_input()


def _start(conn: pq.abc.PGconn, statement: bytes, expected: pq.ExecStatus) -> None:
    conn.send_query(statement)
    _flush(conn)
    result = _result(conn)
    if result is None or result.status != expected:
        _raise(result, conn)


def _flush(conn: pq.abc.PGconn) -> None:
    while conn.flush() == 1:
        readable, _, _ = select.select([conn.socket], [conn.socket], [])
        if readable:
            conn.consume_input()


def _result(conn: pq.abc.PGconn) -> pq.abc.PGresult | None:
    while conn.is_busy():
        select.select([conn.socket], [], [])
        conn.consume_input()
    return conn.get_result()


def _finish(conn: pq.abc.PGconn) -> None:
    failed: pq.abc.PGresult | None = None
    while (result := _result(conn)) is not None:
        if result.status == pq.ExecStatus.FATAL_ERROR:
            failed = failed or result
    if failed is not None:
        _raise(failed, conn)


def _end_copy_in(conn: pq.abc.PGconn, error: bytes | None) -> None:
    while conn.put_copy_end(error) == 0:
        _flush(conn)
    _flush(conn)
    try:
        _finish(conn)
    except psycopg.Error:
        if error is None:
            raise


def _raise(result: pq.abc.PGresult | None, conn: pq.abc.PGconn) -> None:
    if result is None:
        raise psycopg.OperationalError(conn.get_error_message())
    raise psycopg.errors.error_from_result(result)
