"""Every worker gets the schema of this version before a command works on it, and at the first visit otherwise.

Until then it is served with the schema that it has: what it submits is accepted, its routes lead on.
Metadata that its tables have no place for stop its subscription, which tries again by itself until they
have. Tables that are published since are the followers' business (`followers`).
"""

from __future__ import annotations

import asyncio
import time

import psycopg
import structlog
from psycopg import sql

from shardman.errors import Code, UserError
from shardman.pg.connection import Connection
from shardman.pg.schema import install, is_current
from shardman.steps.catalog import value

log = structlog.get_logger()

#: For all that a new version of our schema needs on a node: others do not wait behind us for somebody's open
#: transaction that has read one of our views.
LOCK_TIMEOUT_MS = 300
#: How long a command tries.
PATIENCE_S = 5.0
PAUSE_S = 0.2

_IS_MEMBER = """
select exists (select from shardman.nodes where id = %s and worker_status = 'active' and not lord)
"""


class NodeSchemas:
    """What one leadership knows of the schemas on the nodes."""

    def __init__(self) -> None:
        self._current: set[int] = set()

    async def require(self, node_id: int, conn: Connection, lord: Connection) -> None:
        """Brings the schema of a member up to date if it is not; of others it knows nothing.

        Raises:
            UserError: it cannot be done.
        """
        if node_id in self._current or not await value(lord, _IS_MEMBER, node_id):
            return
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                await self.bring_up_to_date(node_id, conn)
                return
            except UserError as error:
                raise UserError(
                    f"node {node_id}: {error.what}", error.hint, code=error.code
                ) from error
            except psycopg.errors.LockNotAvailable as error:
                if time.monotonic() >= until:
                    raise UserError(
                        f"node {node_id} has the schema of another version, and what is to be changed there"
                        " is in use",
                        "Try again when no transaction that has read views of ours is open there",
                        code=Code.SCHEMA_VERSION,
                    ) from error
                await asyncio.sleep(PAUSE_S)

    async def bring_up_to_date(self, node_id: int, conn: Connection) -> None:
        """Looks, and installs what is missing on a member.

        Raises:
            psycopg.errors.LockNotAvailable: something of ours is in use there.
            UserError: somebody's objects are in the way.
        """
        if not await is_current(conn):
            await conn.execute(
                sql.SQL("set lock_timeout = {}").format(sql.Literal(LOCK_TIMEOUT_MS))
            )
            try:
                await install(conn)
                # An older version did not.
                await conn.execute("select shardman.pin_settings()")
            finally:
                await conn.execute("set lock_timeout = 0")
            log.info("schema brought up to date", node=node_id)
        self._current.add(node_id)
