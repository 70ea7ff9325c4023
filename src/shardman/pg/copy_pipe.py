"""Carries a COPY from one server to another as fast as libpq allows.

COPY TO hands over one message for each row. The pump works on libpq's own calls, in a thread, and
gathers rows into blocks, so that Python's cost for each row is two calls and no allocation of ours.
It reads on while the target is busy, up to a limit, so that neither server waits for the other's pauses.
"""

from __future__ import annotations

import select
import threading
from dataclasses import dataclass, field

import psycopg
from psycopg import pq

BLOCK_BYTES = 64 * 1024
#: What libpq may hold for the target before the source has to wait.
AHEAD_BYTES = 1024 * 1024
STOP_CHECK_S = 0.5


@dataclass
class Pump:
    """One COPY on its way. `bytes_done` and `rows_done` may be read while it runs."""

    source: pq.abc.PGconn
    target: pq.abc.PGconn
    bytes_done: int = 0
    rows_done: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)
    #: Bytes given to libpq since it had last sent all.
    _ahead: int = field(default=0, init=False)

    def run(self, copy_out: bytes, copy_in: bytes) -> None:
        """Runs both statements and moves what the first gives to the second. Blocks.

        Raises:
            psycopg.Error: either side failed, or `stopped` was set.
        """
        self._start(self.target, copy_in, pq.ExecStatus.COPY_IN)
        try:
            self._start(self.source, copy_out, pq.ExecStatus.COPY_OUT)
            self._carry()
        except BaseException as error:
            _end_copy_in(self.target, str(error).encode()[:200])
            raise
        _end_copy_in(self.target, None)

    def _start(self, conn: pq.abc.PGconn, statement: bytes, expected: pq.ExecStatus) -> None:
        conn.send_query(statement)
        _flush(conn)
        # A query may think for long before its first row.
        while conn.is_busy():
            self._check_stopped()
            select.select([conn.socket], [], [], STOP_CHECK_S)
            conn.consume_input()
        result = conn.get_result()
        if result is None or result.status != expected:
            _raise(result, conn)

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
            if block:
                self._put(b"".join(block), len(block))
                block, size = [], 0
            if length == 0:
                self._await_source()
            elif length < 0:
                break
        _flush(self.target)
        _finish(self.source)

    def _put(self, block: bytes, rows: int) -> None:
        self._check_stopped()
        while self.target.put_copy_data(block) == 0:
            _flush(self.target)
        self._ahead += len(block)
        if self.target.flush() == 0:
            self._ahead = 0
        while self._ahead > AHEAD_BYTES:
            self._await_target()
        self.bytes_done += len(block)
        self.rows_done += rows

    def _await_source(self) -> None:
        """Waits a while for the source, or until the target can take more of what it is sent."""
        self._check_stopped()
        source, target = self.source.socket, self.target.socket
        both, writing = ([source, target], [target]) if self._ahead else ([source], [])
        readable, writable, _ = select.select(both, writing, [], STOP_CHECK_S)
        if target in readable:
            self.target.consume_input()
        if writable and self.target.flush() == 0:
            self._ahead = 0
        # Also when there was nothing to read: TLS may have it already.
        self.source.consume_input()

    def _await_target(self) -> None:
        self._check_stopped()
        target = self.target.socket
        readable, _, _ = select.select([target], [target], [], STOP_CHECK_S)
        if readable:
            self.target.consume_input()
        if self.target.flush() == 0:
            self._ahead = 0

    def _check_stopped(self) -> None:
        if self.stopped.is_set():
            raise psycopg.OperationalError("the copy was stopped")


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
