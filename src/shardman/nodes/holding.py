"""Holding commits over several nodes: an instant at which no such transaction of a client is half done.

Each locks `shardman.commit_gate` on its first node until it is decided. Here that lock is taken on all nodes,
so that none begins to be decided, and those that are decided come to their end on the other nodes.
It ends with the sessions that hold it, or when it has lasted for too long.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import psycopg
from psycopg import errors

from shardman.errors import Code, UserError
from shardman.nodes.reach import NodeError, Reach
from shardman.pg.connection import SyncConnection
from shardman.pg.wording import in_words
from shardman.sql.loader import queries

#: How long writers wait at most before what they wait for is given up.
PATIENCE_S = 5.0
SECONDS = 60.0
_PAUSE_S = 0.01


@contextmanager
def hold_commits(
    dsn: str, *, seconds: float = SECONDS, patience_s: float = PATIENCE_S
) -> Iterator[None]:
    """Holds commits of transactions over several nodes of `shardman.connect`, for tools that copy all servers.

    Clients that commit on several nodes wait; those that write on one do not. It ends with the block, and by
    itself when this process is gone.

    Args:
        dsn: of any node, of a member of shardman_operator.
        seconds: it ends then, too.
        patience_s: for so long those that are just being committed are waited for.

    Raises:
        UserError: a node cannot be reached, somebody came to no end; or it had ended before the block did, so
            that what was done in it is worth nothing.
    """
    with Reach(dsn) as reach, held(reach, seconds, patience_s):
        yield


def create_restore_point(dsn: str, name: str, *, patience_s: float = PATIENCE_S) -> dict[int, str]:
    """Makes a restore point (`pg_create_restore_point`) on all nodes, which no transaction of a
    `shardman.connect` over several nodes straddles.

    Args:
        dsn: of any node, of a role that may call pg_create_restore_point on all.
        name: for recovery_target_name; at most 63 bytes.

    Returns:
        By node, the position in its WAL.

    Raises:
        UserError: as `hold_commits`; a command changes the cluster just now.
    """
    if not 0 < len(name.encode()) <= 63:
        raise UserError(
            "the name of a restore point has 1 to 63 bytes",
            "Choose another",
            code=Code.BAD_ARGUMENT,
        )
    with Reach(dsn) as reach, held(reach, SECONDS, patience_s) as sessions:
        _need_quiet(sessions[reach.lord])
        points = {node: _point(node, session, name) for node, session in sessions.items()}
        _need_quiet(sessions[reach.lord])
        return points


@contextmanager
def held(reach: Reach, seconds: float, patience_s: float) -> Iterator[Mapping[int, SyncConnection]]:
    """As `hold_commits`; gives the sessions that hold them, by node, each in a transaction."""
    until = time.monotonic() + patience_s
    with ExitStack() as stack:
        sessions = {n.id: stack.enter_context(reach.open(n.id)) for n in reach.members}
        for node, session in sessions.items():
            with _of(node):
                _close_gate(session, seconds, until)
        for node, session in sessions.items():
            with _of(node):
                _wait_for_parts(node, session, until)
        yield sessions
        for node, session in sessions.items():
            with _of(node):
                session.execute("commit")


def _close_gate(session: SyncConnection, seconds: float, until: float) -> None:
    session.execute("begin")
    left = max(1, round((until - time.monotonic()) * 1000))
    bounds = (f"{left}ms", f"{round(seconds * 1000)}ms")
    session.execute(queries("snapshots")["bounds"], bounds)
    session.execute(queries("snapshots")["hold"])


def _wait_for_parts(node: int, session: SyncConnection, until: float) -> None:
    """What is prepared here is decided: its first node's gate is closed."""
    while rows := session.execute(queries("snapshots")["under_way"]).fetchall():
        if time.monotonic() > until:
            raise NodeError(
                node,
                f"a transaction over several nodes came to no end: {rows[0]['gid']}",
                "See shardman status, and try again",
                code=Code.BUSY,
            )
        time.sleep(_PAUSE_S)


def _point(node: int, session: SyncConnection, name: str) -> str:
    with _of(node):
        row = session.execute(queries("snapshots")["restore_point"], (name,)).fetchone()
        assert row is not None
        return str(row["lsn"])


def _need_quiet(lord: SyncConnection) -> None:
    row = lord.execute(queries("snapshots")["running"]).fetchone()
    if row is not None:
        raise UserError(
            f"the command {row['id']} ({row['cmd_type']}) changes the cluster just now",
            "Try again when it has ended",
            code=Code.BUSY,
        )


@contextmanager
def _of(node: int) -> Iterator[None]:
    """Puts a server's error into words, with the node."""
    try:
        yield
    except errors.LockNotAvailable:
        raise NodeError(
            node, "somebody who commits came to no end", "Try again", code=Code.LOCK_TIMEOUT
        ) from None
    except errors.InsufficientPrivilege as error:
        raise NodeError(
            node,
            in_words(error).what,
            "Connect as a member of shardman_operator; for restore points also: grant execute on function"
            " pg_create_restore_point(text), by a superuser on each server",
            code=Code.PERMISSION_DENIED,
        ) from None
    except (psycopg.OperationalError, errors.IdleInTransactionSessionTimeout) as error:
        raise NodeError(
            node,
            f"commits were let go before the end: {in_words(error).what}",
            "What was done meanwhile is not of one instant: do it again, with more seconds",
            code=Code.NODE_UNREACHABLE,
        ) from None
