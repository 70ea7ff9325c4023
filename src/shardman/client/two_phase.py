"""An application's own two-phase commit (PEP 249), which is on the node that was connected to.

PostgreSQL prepares no transaction that has used another node through postgres_fdw, and says so then.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from shardman.client.router import Router
from shardman.client.routing.picture import HERE
from shardman.client.sessions import Steps


def begin(router: Router, xid: Any) -> Steps:
    """Begins one; until its end all statements go to that node."""
    router.need_no_transaction()
    session = yield from router.session(HERE)
    yield partial(session.tpc_begin, xid)
    router.pinned = router.pinned or "transaction"


def prepare(router: Router) -> Steps:
    """Prepares it."""
    yield router.sessions[HERE].tpc_prepare


def end(router: Router, verb: Literal["tpc_commit", "tpc_rollback"], xid: Any) -> Steps:
    """Ends it, or one that was prepared before."""
    session = router.sessions[HERE] if xid is None else (yield from router.session(HERE))
    yield partial(getattr(session, verb), xid)
    router.held.clear()
    router.forget_transaction()


def recover(router: Router) -> Steps:
    """What is prepared."""
    session = yield from router.session(HERE)
    found = yield session.tpc_recover
    return found
