"""From any node to all the others, the way the nodes reach each other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import psycopg
from psycopg import conninfo
from psycopg.rows import dict_row

from shardman.errors import UserError
from shardman.pg.connect import PINNED, SECRETS, unreadable
from shardman.sql.loader import queries

Connection = psycopg.Connection[dict[str, Any]]
T = TypeVar("T")

APPLICATION = "shardman cli"
CONNECT_SECONDS = 5
# More threads than this gain nothing and could use up the connections of a small server.
_AT_ONCE = 16
_OTHER_NODE = re.compile(r'could not connect to server "shardman_node_([0-9]+)')
# libpq: connection to server at "h" (1.2.3.4), port 5432 failed: FATAL:  role "x" does not exist
_REASON = re.compile(r"connection to server .*? failed: (?:FATAL:\s+)?(.+)")
_PASSWORD = re.compile(
    r"((?:password|secret|_key)\s*=\s*)('(?:[^'\\\\]|\\\\.)*'|[^\s&]+)", re.IGNORECASE
)
_LOGIN = re.compile(r"(postgres(?:ql)?://[^:/@\s]*:)[^@\s]*(@)")


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


def connect(dsn: str, **overrides: Any) -> Connection:
    """A session in autocommit mode.

    Raises:
        UserError: the string cannot be read, or the server cannot be reached.
    """
    try:
        given = conninfo.conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        raise unreadable() from None
    params: dict[str, Any] = {
        "application_name": APPLICATION,
        "connect_timeout": CONNECT_SECONDS,
        "autocommit": True,
        "row_factory": dict_row,
        **given,
        **overrides,
    }
    try:
        conn = psycopg.connect("", **params)
        conn.execute(PINNED)
    except psycopg.OperationalError as error:
        raise unreachable(given, error) from None
    if not conn.autocommit:
        conn.commit()
    return conn


def address(params: Mapping[str, Any]) -> str:
    """Where a connection string leads, for a person; never a secret."""
    shown = {
        k: str(v) for k, v in params.items() if k in ("host", "port", "dbname", "service") and v
    }
    host, port = shown.get("host") or str(params.get("hostaddr") or ""), shown.get("port")
    where = f"{host}:{port}" if host and port else host or (f"port {port}" if port else "")
    database = shown.get("dbname")
    if shown.get("service"):
        where = f"service {shown['service']}"
    return "/".join(p for p in (where, database) if p) or "the default server"


def unreachable(params: Mapping[str, Any], error: psycopg.Error) -> UserError:
    """The sentence for a server that cannot be reached."""
    reason = plain(error, params)
    return UserError(f"cannot reach {address(params)}: {reason}", _advice(reason))


def plain(error: BaseException, params: Mapping[str, Any] | None = None) -> str:
    """What an error says, on one line and without secrets."""
    diag = getattr(error, "diag", None)
    text = (diag.message_primary if diag else None) or str(error)
    reasons = _REASON.findall(text)
    line = reasons[-1] if reasons else next((li for li in text.splitlines() if li.strip()), "")
    for prefix in ("connection failed: ", "connection is bad: ", "FATAL: "):
        line = line.strip().removeprefix(prefix)
    line = line.strip() or "no reason given"
    for name in SECRETS:
        secret = (params or {}).get(name)
        if secret:
            line = line.replace(str(secret), "***")
    return scrub(line).rstrip(".")


def in_words(error: psycopg.Error) -> UserError:
    """What a server or libpq said, and what to do about it."""
    said = error.diag
    if said.message_primary is None and type(error) is psycopg.ProgrammingError:
        return unreadable()
    if said.message_primary is None and isinstance(error, psycopg.OperationalError):
        return UserError(f"the connection broke: {plain(error)}", "Check the server and try again")
    other = _OTHER_NODE.search(said.message_primary or "")
    if other and isinstance(error, psycopg.errors.SqlclientUnableToEstablishSqlconnection):
        reason = plain(psycopg.OperationalError(said.message_detail or "no reason given"))
        return UserError(
            f"it cannot reach node {other[1]}: {reason}", "See shardman status for that node"
        )
    return UserError(plain(error), said.message_hint or said.message_detail or "")


def scrub(text: str) -> str:
    """A text without the passwords of the connection strings in it."""
    text = _PASSWORD.sub(r"\1***", text)
    return _LOGIN.sub(r"\1***\2", text)


def _advice(reason: str) -> str:
    low = reason.lower()
    if "password" in low or "authentication" in low:
        return "Check the user and the password, or set PGPASSWORD or ~/.pgpass"
    if "database" in low and "does not exist" in low:
        return "Check dbname"
    if "role" in low and "does not exist" in low:
        return "Check user"
    if "pg_hba" in low:
        return "Allow this client in the server's pg_hba.conf"
    if "translate host name" in low or "name or service" in low:
        return "Check the name of the host"
    return "Check that the server runs and that host and port are right"


class NodeError(UserError):
    """What is wrong with one node.

    Args:
        node: its id.
        problem: what, without saying which node.
        hint: what to do.
    """

    def __init__(self, node: int, problem: str, hint: str = "") -> None:
        super().__init__(f"node {node}: {problem}", hint)
        self.node = node
        self.problem = problem.rstrip(".")


class Reach:
    """A session on one node of a cluster, and how to get sessions on the others.

    The node that was named is reached as it was named. The others are reached with the options and
    the password that the nodes use among themselves; where the user may not read that password,
    with the one that was given.
    """

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.here = connect(dsn)
        try:
            self.cluster, self.my_id = self._who()
            self.nodes = self._nodes()
            self._passwords = self._read_passwords()
        except BaseException:
            self.here.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.here.close()

    def _who(self) -> tuple[str, int]:
        try:
            row = self.here.execute("select cluster, node_id from shardman.local").fetchone()
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            row = None
        except psycopg.errors.InsufficientPrivilege as error:
            raise UserError(
                f"not allowed to read the cluster's metadata: {plain(error)}",
                "Connect as the owner of the schema shardman",
            ) from None
        if row is None or row["cluster"] is None:
            raise UserError(
                f"{self.where} is not part of a cluster",
                "Make it the lord's with shardman init, or name a node of a cluster with --dsn",
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

    def _read_passwords(self) -> dict[int, str]:
        try:
            rows = self.here.execute("select node_id, password from shardman.node_secrets")
            return {r["node_id"]: r["password"] for r in rows}
        except psycopg.errors.InsufficientPrivilege:
            return {}

    @property
    def where(self) -> str:
        """The address of the node that was named."""
        return address(conninfo.conninfo_to_dict(self.dsn))

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
            raise UserError(f"there is no node {node_id}", f"The nodes are: {known}")
        params: dict[str, Any] = dict(node.options or conninfo.conninfo_to_dict(node.connstring))
        params.setdefault("user", given.get("user") or self.here.info.user)
        password: Any = self._passwords.get(node_id)
        if password is None and params["user"] == self.here.info.user:
            password = given.get("password")
        if password is not None:
            params["password"] = password
        return {k: v for k, v in params.items() if v is not None}

    def open(self, node_id: int) -> Connection:
        """A session on a node. Raises UserError when there is none or it cannot be reached."""
        params = self.params(node_id)
        try:
            return connect(conninfo.make_conninfo("", **params))
        except UserError as error:
            raise NodeError(node_id, error.what, error.hint) from None

    def everywhere(
        self, work: Callable[[int, Connection], T], nodes: Iterable[int] | None = None
    ) -> dict[int, T | NodeError]:
        """Does the same on several nodes at once, all members unless said otherwise.

        Returns:
            by node, what ``work`` returned, or why it could not.
        """
        wanted = [n.id for n in self.members] if nodes is None else list(nodes)
        with ThreadPoolExecutor(min(_AT_ONCE, max(1, len(wanted)))) as pool:
            return dict(zip(wanted, pool.map(lambda i: self._one(i, work), wanted), strict=True))

    def _one(self, node_id: int, work: Callable[[int, Connection], T]) -> T | NodeError:
        try:
            with self.open(node_id) as session:
                return work(node_id, session)
        except NodeError as error:
            return error
        except psycopg.Error as error:
            said = in_words(error)
            return NodeError(node_id, said.what, said.hint)
