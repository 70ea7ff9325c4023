"""Holding commits over several nodes from Python: `shardman.hold_commits()` of SQL, as a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from shardman.pg.connect import connect
from shardman.pg.wording import in_words


@contextmanager
def hold_commits(dsn: str) -> Iterator[None]:
    """Holds commits of transactions over several nodes of `shardman.connect`, for tools that copy all servers.

    Clients that commit on several nodes wait; those that write on one do not. It ends with the block, by
    itself when this process is gone, and in any case after `hold_commits_for` seconds (shardman.settings).

    Args:
        dsn: of any node, of a member of shardman_operator.

    Raises:
        UserError: a node cannot be reached, somebody came to no end; or it had ended before the block did, so
            that what was done in it is worth nothing.
    """
    with connect(dsn) as session:
        session.autocommit = True
        with _in_words():
            session.execute("select shardman.hold_commits()")
        yield
        with _in_words():
            session.execute("select shardman.release_commits()")


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise in_words(error) from None
