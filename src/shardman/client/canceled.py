"""Why a statement was cancelled: the shardlord cancels one to break a deadlock over several nodes, and the
server says of each that it was a user's request."""

from __future__ import annotations

import psycopg
from psycopg import errors

from shardman.client.sessions import Sessions, Steps, own_cursor
from shardman.sql.loader import queries


def explained(router: Sessions, error: psycopg.errors.QueryCanceled) -> Steps:
    """The error to raise: 40P01 where it was a deadlock, else the same.

    Args:
        error: as `Transactions.told` has left it.
    """
    node = getattr(error, "place", None)
    if not isinstance(node, str) or node not in router.sessions:
        return error
    session = router.sessions[node]
    try:
        # Its own transaction has failed, and answers nothing.
        asking = yield from router.connect_to(node)
    except psycopg.Error:
        return error
    try:
        cursor = own_cursor(asking)
        args = (session.info.backend_pid,)
        yield lambda: cursor.execute(queries("deadlocks")["why"], args, prepare=False)
        circle = (yield cursor.fetchone)["circle"]
    except psycopg.Error:
        return error
    finally:
        yield asking.close
    if circle is None:
        return error
    found = errors.DeadlockDetected(
        "deadlock over several nodes: this transaction, the youngest of those that waited for each other, was"
        f" cancelled. Roll it back, and repeat it: {circle}"
    )
    found.node = error.node  # type: ignore[attr-defined]
    found.add_note(f"shardman: on {found.node}")  # type: ignore[attr-defined]
    return found
