"""From any node to all the others, the way the nodes reach each other."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import psycopg
from psycopg import conninfo
from psycopg.rows import tuple_row

from shardman.errors import Code, UserError
from shardman.model.finding import Finding
from shardman.pg.connect import connect, connect_async
from shardman.pg.connection import Connection, SyncConnection
from shardman.pg.conninfo import address, parse
from shardman.pg.wording import in_words, plain
from shardman.sql.loader import queries

T = TypeVar("T")

# More threads than this gain nothing and could use up the connections of a small server.
_AT_ONCE = 16


@dataclass(frozen=True)
class NodeRow:
    """A node as the metadata knows it."""

    id: int
    connstring: str
    status: str | None
    lord: bool
    options: Mapping[str, str]

    @property
    def alive(self) -> bool:
        """Whether it is a member now: the lord, or a worker that is not removed."""
        return self.lord or self.status != "removed"


#: What a database without our schema says, and one with an older schema.
_UNDEFINED = (
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedFunction,
)


def _lacks_schema(session: SyncConnection) -> bool:
    session.rollback()
    with session.cursor(row_factory=tuple_row) as cur:
        return cur.execute("select to_regnamespace('shardman') is null").fetchone() == (True,)


class NodeError(UserError):
    """What is wrong with one node.

    Args:
        node: its id.
        problem: what, without saying which node.
        hint: what to do.
        code: what kind of error it is.
    """

    def __init__(self, node: int, problem: str, hint: str = "", *, code: Code) -> None:
        super().__init__(f"node {node}: {problem}", hint, code=code)
        self.node = node
        self.problem = problem.rstrip(".")

    @property
    def finding(self) -> Finding:
        """As `shardman status` and `shardman check` list it."""
        return Finding(f"node {self.node}", self.problem, self.hint)


class Reach:
    """A session on one node of a cluster, and how to get sessions on the others.

    The node that was named is reached as it was named. The others are reached with the options and
    the password that the nodes use among themselves; where the user may not read that password,
    as the user that was given, with his password.
    """

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.here = connect(dsn)
        try:
            self._read_nodes()
        except BaseException:
            self.here.close()
            raise

    def _read_nodes(self) -> None:
        self.cluster, self.my_id = self._who()
        self.nodes = self._nodes()
        self._passwords = self._read_passwords()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the session on the node that was named."""
        self.here.close()

    def _who(self) -> tuple[str, int]:
        try:
            row = self.here.execute("select cluster, node_id from shardman.local").fetchone()
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            row = None
        except psycopg.errors.InsufficientPrivilege as error:
            raise UserError(
                f"not allowed to read the cluster's metadata: {plain(error)}",
                "Connect as a member of shardman_viewer",
                code=Code.PERMISSION_DENIED,
            ) from None
        if row is None or row["cluster"] is None:
            raise UserError(
                f"{self.where} is not part of a cluster",
                "Make it the lord's with shardman init, or name a node of a cluster with --dsn",
                code=Code.NOT_IN_CLUSTER,
            )
        return str(row["cluster"]), int(row["node_id"])

    def _nodes(self) -> dict[int, NodeRow]:
        rows = self.here.execute(queries("reach")["nodes"]).fetchall()
        return {
            r["id"]: NodeRow(
                r["id"], r["connstring"] or "", r["status"], r["lord"], r["options"] or {}
            )
            for r in rows
        }

    def _read_passwords(self) -> dict[int, str] | None:
        """By node; None where the user may not read them."""
        try:
            rows = self.here.execute("select node_id, password from shardman.node_secrets")
            return {r["node_id"]: r["password"] for r in rows}
        except psycopg.errors.InsufficientPrivilege:
            return None

    @property
    def where(self) -> str:
        """The address of the node that was named."""
        return address(parse(self.dsn))

    @property
    def members(self) -> list[NodeRow]:
        """The lord and the workers that are not removed, by id."""
        return [n for _, n in sorted(self.nodes.items()) if n.alive]

    @property
    def lord(self) -> int:
        """The id of the lord's node."""
        return next((n.id for n in self.nodes.values() if n.lord), 0)

    def params(self, node_id: int) -> dict[str, Any]:
        """How to reach a node; may hold a password."""
        given = conninfo.conninfo_to_dict(self.dsn)
        if node_id == self.my_id:
            return given
        node = self.nodes.get(node_id)
        if node is None:
            known = ", ".join(str(n.id) for n in self.members)
            raise UserError(
                f"there is no node {node_id}", f"The nodes are: {known}", code=Code.NO_SUCH_NODE
            )
        params: dict[str, Any] = dict(node.options or conninfo.conninfo_to_dict(node.connstring))
        own = given.get("user") or self.here.info.user
        if self._passwords is None:
            params["user"] = own
        params.setdefault("user", own)
        password: Any = (self._passwords or {}).get(node_id)
        if password is None and params["user"] == self.here.info.user:
            password = given.get("password")
        if password is not None:
            params["password"] = password
        return {k: v for k, v in params.items() if v is not None}

    def open(self, node_id: int) -> SyncConnection:
        """A session on a node. Raises UserError when there is none or it cannot be reached."""
        params = self.params(node_id)
        try:
            return connect(conninfo.make_conninfo("", **params))
        except UserError as error:
            raise NodeError(node_id, error.what, error.hint, code=error.code) from None

    def session(self, node_id: int) -> AbstractContextManager[SyncConnection]:
        """A session on a node, for the block. Raises as `open`."""
        return self.open(node_id)

    async def open_async(self, node_id: int) -> Connection:
        """As `open`, for asyncio."""
        params = self.params(node_id)
        try:
            return await connect_async(conninfo.make_conninfo("", **params))
        except UserError as error:
            raise NodeError(node_id, error.what, error.hint, code=error.code) from None

    @asynccontextmanager
    async def sessions(self) -> AsyncIterator[Callable[[int], Awaitable[Connection]]]:
        """Sessions for asyncio, one a node, opened when they are asked for, closed together. Whoever
        asks for one gets NodeError when there is no such node or it cannot be reached."""
        opened: dict[int, Connection] = {}
        # By node, so that one which is slow to answer keeps nobody from the others.
        opening: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        async with AsyncExitStack() as stack:

            async def node(node_id: int) -> Connection:
                async with opening[node_id]:
                    if node_id not in opened:
                        opened[node_id] = await stack.enter_async_context(
                            await self.open_async(node_id)
                        )
                    return opened[node_id]

            yield node

    def everywhere(
        self, work: Callable[[int, SyncConnection], T], nodes: Iterable[int] | None = None
    ) -> dict[int, T | NodeError]:
        """Does the same on several nodes at once, all members unless said otherwise.

        Returns:
            by node, what ``work`` returned, or why it could not.
        """
        wanted = [n.id for n in self.members] if nodes is None else list(nodes)
        with ThreadPoolExecutor(min(_AT_ONCE, max(1, len(wanted)))) as pool:
            return dict(zip(wanted, pool.map(lambda i: self._one(i, work), wanted), strict=True))

    def _one(self, node_id: int, work: Callable[[int, SyncConnection], T]) -> T | NodeError:
        try:
            with self.session(node_id) as session:
                try:
                    return work(node_id, session)
                except _UNDEFINED as error:
                    if not _lacks_schema(session):
                        raise
                    raise NodeError(
                        node_id,
                        "its database has no schema shardman any more",
                        "It is no member of the cluster: remove it with shardman rm-node and --force",
                        code=Code.NOT_A_MEMBER,
                    ) from error
        except NodeError as error:
            return error
        except psycopg.Error as error:
            said = in_words(error)
            return NodeError(node_id, said.what, said.hint, code=said.code)
