"""Sessions of a shardlord on the nodes, each admitted by its epoch."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo

from shardman import names
from shardman.errors import Deposed, NodeGone, Refused, UserError
from shardman.lord.idle import IdleSessions
from shardman.pg.connect import PINNED
from shardman.steps.base import Connection

CONNECT_TIMEOUT_S = 5
#: A session that was kept and says nothing for so long is given up for a new one.
KEPT_ANSWERS_S = 1.0

#: A dead peer is noticed within seconds, not when the kernel's two hours are over.
_TRANSPORT: dict[str, Any] = {
    "connect_timeout": CONNECT_TIMEOUT_S,
    "keepalives_idle": 3,
    "keepalives_interval": 1,
    "keepalives_count": 4,
    "tcp_user_timeout": 8000,
}

# Ours must neither hang on a dead replica nor be ended by a timeout set for the application.
_SETTINGS = """
select set_config('search_path', 'public', false),
       set_config('synchronous_commit', 'local', false),
       set_config('client_min_messages', 'warning', false), set_config('TimeZone', 'UTC', false),
       (select count(set_config(name, '0', false))
          from unnest(array['statement_timeout', 'lock_timeout', 'idle_session_timeout',
                            'idle_in_transaction_session_timeout', 'transaction_timeout']) as name
         where current_setting(name, true) is not null)
"""
# Our statements may carry passwords (user mappings, subscriptions): they stay out of the server's log.
# An autovacuum gives way to whom it has blocked for deadlock_timeout, by default longer than we ever wait.
_QUIET = """
select set_config('deadlock_timeout', '10ms', false),
       set_config('log_statement', 'none', false),
       set_config('log_min_duration_statement', '-1', false),
       set_config('log_min_error_statement', 'panic', false)
"""


#: What a call of ours gets where our schema is not, or not all of it.
_NO_SCHEMA = (psycopg.errors.UndefinedFunction, psycopg.errors.InvalidSchemaName)


async def open_session(conninfo: str, application_name: str) -> Connection:
    """An autocommit connection with the settings that all our sessions have.

    Raises:
        psycopg.OperationalError: the server cannot be reached.
    """
    try:
        async with asyncio.timeout(2 * CONNECT_TIMEOUT_S):
            conn = await AsyncConnection.connect(
                make_conninfo(conninfo, application_name=application_name, **_TRANSPORT),
                autocommit=True,
            )
            await conn.execute(f"{PINNED};{_SETTINGS}")
            with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
                await conn.execute(_QUIET)
    except TimeoutError as error:
        raise psycopg.OperationalError("the server accepted and does not answer") from error
    return conn


def hang_up(conn: AsyncConnection[Any]) -> None:
    """Ends a session from this side at once: whoever waits for an answer in it gets an error.

    A server that was stopped answers nothing and closes nothing, so neither a cancel request nor a
    timeout of its own helps.
    """
    if conn.closed:
        return
    with (
        contextlib.suppress(OSError, psycopg.Error),
        socket.socket(fileno=os.dup(conn.pgconn.socket)) as end,
    ):
        end.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True)
class Address:
    """How a node is reached.

    Args:
        conninfo: from the lord, password included.
        peer: from other nodes (resolved parameters, password included).
        member: false for a node that is being added: it does not know our epoch yet.
        removed: it was a member.
    """

    conninfo: str
    peer: str
    member: bool
    removed: bool = False


class Sessions:
    """Opens sessions for one tenure.

    Args:
        dsn: of the lord's database.
        cluster_id: the cluster's.
        epoch: of the tenure.
    """

    def __init__(self, dsn: str, cluster_id: str, epoch: int) -> None:
        self.dsn = dsn
        self.cluster_id = cluster_id
        self.epoch = epoch
        self._open: dict[int, WeakSet[AsyncConnection[Any]]] = {}
        self._idle = IdleSessions()
        #: How each admitted session was opened.
        self._opened: WeakKeyDictionary[Connection, str] = WeakKeyDictionary()

    def adopt(self, node_id: int, conn: AsyncConnection[Any]) -> None:
        """Makes `sever` know a session on a node."""
        self._open.setdefault(node_id, WeakSet()).add(conn)

    def sever(self, node_id: int) -> None:
        """Hangs up all sessions on a node that has been silent for too long."""
        for conn in self._open.pop(node_id, ()):
            hang_up(conn)

    async def lord(self) -> Connection:
        """A session on the lord's database."""
        return await self._kept(self.dsn) or await self._admitted(self.dsn)

    async def give_back(self, conn: Connection) -> None:
        """Takes back a session whose settings are as they were. One in a transaction is closed, which
        rolls that back."""
        conninfo = self._opened.get(conn)
        if conninfo is None or not self._idle.put(conninfo, conn):
            await conn.close()

    def end(self) -> None:
        """Closes what nobody uses: the tenure is over."""
        self._idle.end()

    async def open(self, node_id: int, lord: Connection, cmd_id: int | None = None) -> Connection:
        """A session on a node.

        Args:
            node_id: which node; 0 is the lord's database.
            lord: a session on the lord's database, to look the address up.
            cmd_id: the add_node command to which a node not yet added belongs.

        Raises:
            psycopg.OperationalError: the node cannot be reached.
            NodeGone: nor will it ever be, for it was removed.
            Refused: another shardlord acts.
        """
        if node_id == 0:
            return await self.lord()
        address = await self.address(node_id, lord, cmd_id)
        return await self._reach(node_id, address, kept=True)

    async def connect(self, node_id: int, address: Address) -> Connection:
        """As `open`, where the address is known. Always a new one: whoever probes a node wants to know
        whether it takes any."""
        return await self._reach(node_id, address, kept=False)

    async def _reach(self, node_id: int, address: Address, *, kept: bool) -> Connection:
        if not address.member:
            return await open_session(address.conninfo, names.application(self.epoch))
        try:
            conn = await self._kept(address.conninfo) if kept else None
            conn = conn or await self._admitted(address.conninfo)
        except (psycopg.OperationalError, UserError) as error:
            if address.removed:
                raise NodeGone(f"node {node_id} was removed and cannot be reached") from error
            raise
        self.adopt(node_id, conn)
        return conn

    async def address(self, node_id: int, lord: Connection, cmd_id: int | None = None) -> Address:
        """How to reach a node.

        Raises:
            UserError: there is no such node.
        """
        cur = await lord.execute(
            "select n.connstring, n.options, s.password, n.worker_status = 'removed'"
            " from shardman.nodes n"
            " left join shardman.node_secrets s on s.node_id = n.id"
            " where case when %s = 0 then n.lord else n.id = %s end",
            (node_id, node_id),
        )
        row = await cur.fetchone()
        if row is not None:
            secret = {"password": row[2]} if row[2] is not None else {}
            own = self.dsn if node_id == 0 else make_conninfo(row[0] or "", **secret)
            return Address(
                own, make_conninfo(**row[1], **secret), member=True, removed=bool(row[3])
            )
        cur = await lord.execute(
            "select connstring from shardman.cmd_secrets where cmd_id = %s", (cmd_id,)
        )
        row = await cur.fetchone()
        if row is None:
            raise UserError(f"there is no node {node_id}", "See shardman.nodes")
        return Address(row[0], row[0], member=False)

    async def replication(
        self, conninfo: str, beside: Connection
    ) -> AsyncConnection[tuple[object, ...]]:
        """A new replication connection to a member, which admits it as any other session.

        Args:
            beside: a session on the same node. It asks to be admitted, for a replication connection
                knows only the simple protocol.

        Raises:
            psycopg.OperationalError: the node cannot be reached.
            Refused: another shardlord acts.
        """
        await self._admit(beside)
        return await AsyncConnection.connect(
            make_conninfo(conninfo, application_name=names.application(self.epoch), **_TRANSPORT),
            autocommit=True,
            replication="database",
        )

    async def _admitted(self, conninfo: str) -> Connection:
        conn = await open_session(conninfo, names.application(self.epoch))
        await self._admit(conn)
        self._opened[conn] = conninfo
        return conn

    async def _kept(self, conninfo: str) -> Connection | None:
        """One that was given back and still answers."""
        while (conn := self._idle.take(conninfo)) is not None:
            asked = asyncio.create_task(self._admit(conn))
            try:
                await asyncio.wait({asked}, timeout=KEPT_ANSWERS_S)
            finally:
                if not asked.done():
                    # Cancelled, a query waits for its server: this one may hang.
                    hang_up(conn)
                    await asyncio.wait({asked})
            try:
                await asked
            except psycopg.OperationalError:
                await conn.close()
            else:
                return conn
        return None

    async def _admit(self, conn: Connection) -> None:
        try:
            await conn.execute("select shardman.admit(%s, %s)", (self.cluster_id, self.epoch))
        except psycopg.Error as error:
            newest = await _newest_epoch(conn)
            await conn.close()
            if error.sqlstate == "SHM01":
                raise _refusal(str(error), self.epoch, newest) from error
            if error.sqlstate == "SHM02" or isinstance(error, _NO_SCHEMA):
                raise UserError(
                    f"a node does not know this cluster any more: {error.diag.message_primary}",
                    "Remove the node with rm_node and force, and add it again",
                ) from error
            raise


async def _newest_epoch(conn: Connection) -> int:
    try:
        row = await (await conn.execute("select epoch from shardman.local")).fetchone()
    except psycopg.Error:
        return 0
    return int(row[0]) if row else 0


def _refusal(reason: str, mine: int, newest: int) -> Refused:
    return Deposed(reason) if names.term(newest) > names.term(mine) else Refused(reason)
