"""Sessions of a shardlord on the nodes, each admitted by its epoch."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

from shardman import names
from shardman.errors import Code, Deposed, Refused, RemovedNodeAway, UserError
from shardman.lord.idle import KEEP_LORD_S, KEEP_S, IdleSessions
from shardman.lord.node_schemas import NodeSchemas
from shardman.pg import door
from shardman.pg.bounded import BoundedConnection, hang_up
from shardman.pg.connect import PINNED, undisturbed
from shardman.pg.connection import Connection
from shardman.sql.loader import queries

CONNECT_TIMEOUT_S = 5
#: Sessions that are kept on each node for when it has no connection left.
RESERVE = 2
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

# Ours must not hang on a dead replica.
_SETTINGS = """
select set_config('search_path', 'public', false),
       set_config('synchronous_commit', 'local', false),
       set_config('client_min_messages', 'warning', false), set_config('TimeZone', 'UTC', false),
       set_config('DateStyle', 'ISO, MDY', false), set_config('IntervalStyle', 'postgres', false),
       -- What we change on a node is for that node.
       set_config('shardman.ddl', 'here', false),
       -- Whoever hangs up leaves nobody at work here, nor a lock. Not every platform can look.
       (select set_config('client_connection_check_interval', '1s', false)
         where version() !~* 'mingw|visual c')
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


def _ours(conninfo: str, application_name: str) -> str:
    """A connection string with what all our sessions have."""
    options = undisturbed(conninfo_to_dict(conninfo))
    return make_conninfo(conninfo, application_name=application_name, **_TRANSPORT, **options)


async def open_session(conninfo: str, application_name: str) -> Connection:
    """An autocommit connection with the settings that all our sessions have.

    Raises:
        psycopg.OperationalError: the server cannot be reached.
    """
    try:
        async with asyncio.timeout(2 * CONNECT_TIMEOUT_S):
            conn = await _connected(conninfo, application_name)
            async with closed_unless_kept(conn):
                await conn.execute(f"{PINNED};{_SETTINGS}")
                with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
                    await conn.execute(_QUIET)
    except TimeoutError as error:
        raise psycopg.OperationalError("the server accepted and does not answer") from error
    return conn


async def _connected(conninfo: str, application_name: str, **options: Any) -> Connection:
    """A connection. Whoever is cancelled while it is made leaves none behind: what libpq had begun would
    stand until somebody collects garbage, so it is brought to its end and closed."""
    making = asyncio.create_task(_made(_ours(conninfo, application_name), **options))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        making.add_done_callback(_close_made)
        raise
    except Exception as error:
        _let_go(error)
        raise


async def _made(conninfo: str, **options: Any) -> BoundedConnection:
    """A connection; once more where the number of its socket was what failed. The event loop may still know it
    as that of a session that was closed while somebody waited in it: it forgets that one with the failure, and
    the server has nothing to do with it."""
    try:
        return await BoundedConnection.connect(conninfo, autocommit=True, **options)
    except psycopg.OperationalError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        _let_go(error)
    return await BoundedConnection.connect(conninfo, autocommit=True, **options)


def _close_made(making: asyncio.Task[BoundedConnection]) -> None:
    if making.cancelled():
        return
    if (error := making.exception()) is not None:
        _let_go(error)
    else:
        making.result().pgconn.finish()


def _let_go(error: BaseException) -> None:
    """Ends a connection that took too long to be made. libpq's half of it hangs on the frames of the error,
    which are kept as long as somebody has that; the server meanwhile has let it in."""
    traceback.clear_frames(error.__traceback__)


@asynccontextmanager
async def closed_unless_kept(conn: Connection) -> AsyncIterator[None]:
    """Closes a session when what is done with it first fails or is cancelled. A server would keep it for as
    long as the error is held somewhere."""
    try:
        yield
    except BaseException:
        await conn.close()
        raise


@dataclass(frozen=True)
class Address:
    """How a node is reached.

    Args:
        conninfo: from the lord, password included.
        peer: from other nodes (resolved parameters, password included).
        member: false for a node that is being added: it does not know our epoch yet.
        removed: it was a member.
        refused: why what answers there is not taken for the node, if so.
    """

    conninfo: str
    peer: str
    member: bool
    removed: bool = False
    refused: str | None = None


class Sessions:
    """Opens sessions for one leadership.

    Args:
        dsn: of the lord's database.
        cluster_id: the cluster's.
        epoch: of the leadership.
    """

    def __init__(self, dsn: str, cluster_id: str, epoch: int) -> None:
        self.dsn = dsn
        self.cluster_id = cluster_id
        self.epoch = epoch
        self._open: dict[int, WeakSet[Connection]] = {}
        self.schemas = NodeSchemas()
        self._idle = IdleSessions()
        #: Those of this leadership that somebody may hold.
        self._all: WeakSet[Connection] = WeakSet()
        self._ended = False
        #: By the connection string that opened them.
        self._reserve: defaultdict[str, list[Connection]] = defaultdict(list)
        #: How each admitted session was opened.
        self._opened: WeakKeyDictionary[Connection, str] = WeakKeyDictionary()
        #: When each node's server was started that was compared with what it was before.
        self._started: dict[int, datetime | None] = {}
        #: How each member was to be reached when that was last looked up.
        self._addresses: dict[int, Address] = {}

    def again(self) -> Sessions:
        """For what is left to do when these are ended: of the same epoch, with what they knew of the nodes."""
        after = Sessions(self.dsn, self.cluster_id, self.epoch)
        after._started, after._addresses = self._started, self._addresses
        return after

    def known(self) -> list[int]:
        """The workers that can be reached without the lord's database."""
        return [node for node in self._addresses if node != 0]

    @asynccontextmanager
    async def on_known(self, node_id: int) -> AsyncIterator[Connection]:
        """A session on a worker, without the lord's database; it is closed behind the block.

        Raises:
            As `open`.
        """
        if node_id not in self._addresses:
            raise psycopg.OperationalError(f"it is not known how node {node_id} is reached")
        conn = await self.connect(node_id, self._addresses[node_id])
        try:
            yield conn
        finally:
            await conn.close()

    def adopt(self, node_id: int, conn: Connection) -> None:
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
        keep_s = KEEP_LORD_S if conninfo == self.dsn else KEEP_S
        if conninfo is None or not (
            self._into_reserve(conninfo, conn) or self._idle.put(conninfo, conn, keep_s)
        ):
            await conn.close()

    def _into_reserve(self, conninfo: str, conn: Connection) -> bool:
        """Closed, somebody else would take its place on a server that is full."""
        fit = conn.info.transaction_status == TransactionStatus.IDLE
        wanting = conninfo in self._reserve and len(self._reserve[conninfo]) < RESERVE
        if fit and wanting:
            self._reserve[conninfo].append(conn)
        return fit and wanting

    def end(self) -> None:
        """Closes what nobody uses and hangs up the rest: the leadership is over."""
        self._ended = True
        self._idle.end()
        for conn in (conn for held in self._reserve.values() for conn in held):
            conn.pgconn.finish()
        self._reserve.clear()
        for conn in list(self._all):
            hang_up(conn)

    async def hold(self, node_id: int, address: Address) -> None:
        """Keeps the reserve on a node: sessions that answer.

        Raises:
            psycopg.OperationalError: there is no room for it, or the node cannot be reached.
        """
        reserve = self._reserve[address.conninfo]
        held: list[Connection] = []
        try:
            while (conn := await self._answering(reserve)) is not None:
                held.append(conn)
            while len(held) < RESERVE:
                held.append(await self._recognised(node_id, address))
        finally:
            reserve[:] = held
            if self._ended:
                for conn in held:
                    conn.pgconn.finish()

    async def open(self, node_id: int, lord: Connection, cmd_id: int | None = None) -> Connection:
        """A session on a node.

        Args:
            node_id: which node; 0 is the lord's database.
            lord: a session on the lord's database, to look the address up.
            cmd_id: the add_node command to which a node not yet added belongs.

        Raises:
            psycopg.OperationalError: the node cannot be reached.
            RemovedNodeAway: nor will it ever be, for it was removed.
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
        if address.refused is not None:
            raise NotTheNode(address.refused)
        if not address.member:
            return await self._opened_anew(address.conninfo)
        try:
            conn = await self._kept(address.conninfo) if kept else None
            conn = conn or await self._new(node_id, address)
        except (psycopg.OperationalError, UserError) as error:
            if address.removed:
                raise RemovedNodeAway(node_id) from error
            raise
        self.adopt(node_id, conn)
        return conn

    async def _new(self, node_id: int, address: Address) -> Connection:
        """A new session; one of the reserve where the server has no connection left.

        Raises:
            psycopg.errors.TooManyConnections: it has none, and the reserve is used up.
        """
        try:
            return await self._recognised(node_id, address)
        except psycopg.OperationalError as error:
            params = conninfo_to_dict(address.conninfo)
            if isinstance(error, NotTheNode) or not await asyncio.to_thread(door.is_full, params):
                raise
            conn = await self._answering(self._reserve[address.conninfo])
            if conn is None:
                raise psycopg.errors.TooManyConnections(
                    f"node {node_id} answers, but has no connection left"
                ) from error
            return conn

    async def _recognised(self, node_id: int, address: Address) -> Connection:
        """A new session. The first one since a server was started compares it with what it was before.

        Raises:
            NotTheNode: it was restored to an earlier time.
        """
        conn = await self._admitted(address.conninfo)
        async with closed_unless_kept(conn):
            cur = await conn.execute("select pg_postmaster_start_time()")
            (started,) = await cur.fetchone() or (None,)
            if started is None or started != self._started.get(node_id):
                await self._compare(node_id, conn)
                self._started[node_id] = started
        return conn

    async def _compare(self, node_id: int, conn: Connection) -> None:
        row = await (await conn.execute(queries("watch")["wal_here"])).fetchone()
        lord = await self.lord()
        try:
            cur = await lord.execute(
                "select shardman.saw_node(%s, %s, %s)", (node_id, *(row or (0, None)))
            )
            problem = (await cur.fetchone() or (None,))[0]
        finally:
            await self.give_back(lord)
        if problem is not None:
            raise NotTheNode(problem)

    async def address(self, node_id: int, lord: Connection, cmd_id: int | None = None) -> Address:
        """How to reach a node.

        Raises:
            UserError: there is no such node.
        """
        cur = await lord.execute(
            "select n.connstring, n.options, s.password, n.worker_status = 'removed',"
            " (select x.problem from shardman.sightings x where x.node_id = n.id)"
            " from shardman.nodes n"
            " left join shardman.node_secrets s on s.node_id = n.id"
            " where case when %s = 0 then n.lord else n.id = %s end",
            (node_id, node_id),
        )
        row = await cur.fetchone()
        if row is not None:
            secret = {"password": row[2]} if row[2] is not None else {}
            own = self.dsn if node_id == 0 else make_conninfo(row[0] or "", **secret)
            found = Address(
                own,
                make_conninfo(**row[1], **secret),
                member=True,
                removed=bool(row[3]),
                refused=row[4],
            )
            self._addresses[node_id] = found
            return found
        cur = await lord.execute(
            "select connstring from shardman.cmd_secrets where cmd_id = %s", (cmd_id,)
        )
        row = await cur.fetchone()
        if row is None:
            raise UserError(
                f"there is no node {node_id}", "See shardman.nodes", code=Code.NO_SUCH_NODE
            )
        return Address(row[0], row[0], member=False)

    async def replication(self, conninfo: str, session: Connection) -> Connection:
        """A new replication connection to a member, which admits it as any other session.

        Args:
            session: one on the same node. It asks to be admitted, for a replication connection
                knows only the simple protocol.

        Raises:
            psycopg.OperationalError: the node cannot be reached.
            Refused: another shardlord acts.
        """
        await self._admit(session)
        conn = await _connected(conninfo, names.application(self.epoch), replication="database")
        return self._while_in_office(conn)

    async def _admitted(self, conninfo: str) -> Connection:
        conn = await self._opened_anew(conninfo)
        async with closed_unless_kept(conn):
            await self._admit(conn)
        self._opened[conn] = conninfo
        return conn

    async def _opened_anew(self, conninfo: str) -> Connection:
        return self._while_in_office(await open_session(conninfo, names.application(self.epoch)))

    def _while_in_office(self, conn: Connection) -> Connection:
        """Makes `end` know a session.

        Raises:
            Refused: it came too late.
        """
        if self._ended:
            conn.pgconn.finish()
            raise Refused(f"epoch {self.epoch} is over")
        self._all.add(conn)
        return conn

    async def _kept(self, conninfo: str) -> Connection | None:
        """One that was given back and still answers."""
        return await self._answering(self._idle.kept(conninfo))

    async def _answering(self, kept: list[Connection]) -> Connection | None:
        """Takes one of these that still answers."""
        while kept:
            conn = kept.pop()
            asked = asyncio.create_task(self._admit(conn))
            async with closed_unless_kept(conn):
                try:
                    await asyncio.wait({asked}, timeout=KEPT_ANSWERS_S)
                finally:
                    if not asked.done():
                        # Cancelled, a query waits for its server: this one may hang.
                        hang_up(conn)
                        await asyncio.wait({asked})
                        # Whoever is cancelled here asks no more what became of it.
                        asked.exception()
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
                    code=Code.NOT_A_MEMBER,
                ) from error
            if error.sqlstate == "SHM07":
                raise NotTheNode(str(error.diag.message_primary)) from error
            raise


class NotTheNode(psycopg.OperationalError):
    """What answers at a node's address is a copy of it. Nothing is done there: it is as if nothing
    answered."""


async def _newest_epoch(conn: Connection) -> int:
    try:
        row = await (await conn.execute("select epoch from shardman.local")).fetchone()
    except psycopg.Error:
        return 0
    return int(row[0]) if row else 0


def _refusal(reason: str, mine: int, newest: int) -> Refused:
    return Deposed(reason) if names.term(newest) > names.term(mine) else Refused(reason)
