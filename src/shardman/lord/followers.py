"""Lets every worker follow this lord's metadata: after a promotion their subscriptions lead to the former
lord's database, or to nothing.

A worker's copy may be older than the new lord's, so it is made equal to it at the instant from which the
new subscription goes on. Whether a worker follows is seen in its copy of `lord_term` and in the slot, so
this may be cut short anywhere and is done again.
"""

from __future__ import annotations

import asyncio

import psycopg
import structlog
from psycopg import sql

from shardman import names
from shardman.errors import Temporary, UserError
from shardman.lord.sessions import Sessions
from shardman.pg import slots, subscriptions
from shardman.pg.initialize import PUBLISHED
from shardman.pg.retirement import retire
from shardman.steps.base import Connection
from shardman.steps.catalog import value
from shardman.steps.nodes import copy_table
from shardman.tasks import all_of

log = structlog.get_logger()

EVERY_S = 1.0
#: A slot cannot be made while write transactions run on the lord's server; another try is made later.
PATIENCE_S = 60.0

#: The workers that a former lord knows, once there was another lord than the first.
_STRAYS = """
select n.id from shardman.nodes n join shardman.local l on true
 where n.worker_status = 'active' and not n.lord and shardman.setting('lord_term', '0') <> '0'
   and not exists (select from pg_replication_slots s
                    where s.slot_name = format('shardman_meta_%s_%s', l.cluster, n.id)
                      and s.database = current_database() and s.active)
   and not exists (select from shardman.cmd_log c
                    where c.cmd_type in ('add_node', 'rm_node') and c.status = 'in progress')
 order by 1
"""


class Followers:
    """Brings the workers that do not follow this lord to do so."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._said: set[int] = set()

    async def run(self) -> None:
        """Goes on until cancelled."""
        lord = await self._sessions.lord()
        try:
            while True:
                cur = await lord.execute(_STRAYS)
                strays = [int(row[0]) for row in await cur.fetchall()]
                await all_of(*(self._gather(node) for node in strays))
                await asyncio.sleep(EVERY_S)
        finally:
            await lord.close()

    async def _gather(self, node: int) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                if await self._follow(node):
                    log.info("node follows", node=node)
                    self._said.discard(node)
        except (psycopg.Error, UserError, Temporary, TimeoutError) as error:
            if node not in self._said:
                log.warning("node does not follow yet", node=node, reason=str(error) or "timeout")
            self._said.add(node)

    async def _follow(self, node: int) -> bool:
        lord = await self._sessions.lord()
        try:
            conn = await self._sessions.open(node, lord)
            try:
                if await self._follows(lord, conn, node):
                    return False
                await self._attach(lord, conn, node)
                return True
            finally:
                await conn.close()
        finally:
            await lord.close()

    async def _follows(self, lord: Connection, conn: Connection, node: int) -> bool:
        """Whether the node has subscribed to this lord and will stream by itself."""
        name = names.meta_slot(self._sessions.cluster_id, node)
        query = "select shardman.setting('lord_term', '0')"
        if await value(lord, query) != await value(conn, query):
            return False
        if name not in await slots.ls(lord, name) or name not in await subscriptions.ls(conn, name):
            return False
        await subscriptions.enable(conn, name)
        return True

    async def _attach(self, lord: Connection, conn: Connection, node: int) -> None:
        name = names.meta_slot(self._sessions.cluster_id, node)
        peer = (await self._sessions.address(0, lord)).peer
        # It may have been the lord's database itself.
        await retire(conn, self._sessions.cluster_id)
        await subscriptions.drop(conn, name)
        await slots.drop(lord, name)
        keeper = await self._sessions.replication(self._sessions.dsn, lord)
        try:
            cur = await keeper.execute(
                sql.SQL("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput (SNAPSHOT 'export')").format(
                    sql.Identifier(name)
                )
            )
            row = await cur.fetchone()
            assert row is not None
            await self._copy(conn, name, str(row[2]), peer)
        finally:
            await keeper.close()
        # The position of the copy is known on the node once something has come through the stream.
        await lord.execute("update shardman.settings set value = value where name = 'lord_term'")

    async def _copy(self, conn: Connection, name: str, snapshot: str, peer: str) -> None:
        """Metadata and subscription change in one transaction on the node."""
        source = await self._sessions.lord()
        tables = list(PUBLISHED)
        try:
            await source.execute("begin isolation level repeatable read, read only")
            await source.execute(
                sql.SQL("set transaction snapshot {}").format(sql.Literal(snapshot))
            )
            async with conn.transaction():
                await conn.execute("select shardman.expect_copy(%s)", (tables,))
                for table in tables:
                    await copy_table(
                        source,
                        conn,
                        sql.Identifier("shardman", table),
                        sql.Identifier("pg_temp", f"incoming_{table}"),
                    )
                await conn.execute("select shardman.merge_copy(%s)", (tables,))
                await subscriptions.create(
                    conn, name, peer, names.meta_publication(self._sessions.cluster_id)
                )
        finally:
            await source.close()
