"""To all nodes again and again, in the same sessions.

A session's first query of our views takes several times as long as its next, for the server reads its catalogs
first; and to open one costs a process. So whoever looks every second keeps them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg

from shardman.nodes.reach import NodeError, Reach
from shardman.pg.bounded import shut
from shardman.pg.connect import connect
from shardman.pg.connection import SyncConnection

T = TypeVar("T")

#: Seconds after which the session on the node that was named is opened anew: a role that may not come in
#: any more sees nothing after that.
RENEWED_S = 30.0
#: The same for those on all nodes: what they have read of catalogs and metadata takes memory there.
KEPT_S = 600.0
#: How long the work in one session may take, in seconds. A server that hangs closes nothing.
PATIENCE_S = 10.0


@dataclass(frozen=True)
class _Kept:
    session: SyncConnection
    params: Mapping[str, Any]
    since: float


class KeptReach(Reach):
    """As `Reach`, for several looks: between them its sessions stay open. To be used by one thread at a time.

    Args:
        dsn: of any node.
        program: as pg_stat_activity is to call it.

    Raises:
        UserError: the node cannot be reached or belongs to no cluster.
    """

    def __init__(self, dsn: str, program: str) -> None:
        self._program = program
        self._kept: dict[int, _Kept] = {}
        self._proved = time.monotonic()
        super().__init__(dsn)

    def open(self, node_id: int) -> SyncConnection:
        """As `Reach.open`; its server ends by itself what nobody waits for any more."""
        session = super().open(node_id)
        session.execute(
            "select set_config('application_name', %s, false), set_config('statement_timeout', %s, false)",
            (self._program, f"{PATIENCE_S}s"),
        )
        return session

    def follow(self) -> None:
        """Reads anew which nodes there are.

        Raises:
            UserError: the node that was named lets nobody in, or belongs to no cluster any more.
            psycopg.Error: it does not answer.
        """
        if time.monotonic() - self._proved > RENEWED_S:
            self.here.close()
            self.here = connect(self.dsn)
            self._proved = time.monotonic()
        with _bounded(self.here):
            self._read_nodes()
        for gone in self._kept.keys() - {n.id for n in self.members}:
            self._kept.pop(gone).session.close()

    def close(self) -> None:
        """Ends all sessions."""
        for each in self._kept.values():
            each.session.close()
        self._kept.clear()
        super().close()

    @contextmanager
    def session(self, node_id: int) -> Iterator[SyncConnection]:
        """One that was kept, or a new one."""
        one = self._take(node_id)
        if one is None:
            one = _Kept(self.open(node_id), self.params(node_id), time.monotonic())
        try:
            with _bounded(one.session):
                yield one.session
        except BaseException:
            one.session.close()
            raise
        self._kept[node_id] = one

    def _take(self, node_id: int) -> _Kept | None:
        one = self._kept.pop(node_id, None)
        if one is None or one.session.closed:
            return None
        if one.params != self.params(node_id) or time.monotonic() - one.since > KEPT_S:
            one.session.close()
            return None
        return one

    def _one(self, node_id: int, work: Callable[[int, SyncConnection], T]) -> T | NodeError:
        """What failed in a session of before may do better in a new one: its server was started anew, or its
        schema is another."""
        kept = node_id in self._kept
        found = super()._one(node_id, work)
        return super()._one(node_id, work) if kept and isinstance(found, NodeError) else found


@contextmanager
def _bounded(session: SyncConnection) -> Iterator[None]:
    """Hangs up when it takes too long.

    Raises:
        psycopg.OperationalError: it did.
    """
    overdue = threading.Event()

    def give_up() -> None:
        overdue.set()
        shut(session.pgconn)

    timer = threading.Timer(PATIENCE_S, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    except psycopg.OperationalError as error:
        if overdue.is_set():
            raise psycopg.OperationalError(
                f"the server has not answered for {PATIENCE_S:.0f} s"
            ) from error
        raise
    finally:
        timer.cancel()
