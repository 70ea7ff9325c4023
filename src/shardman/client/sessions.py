"""The sessions of a connection: one on the node that was connected to, and at most one on each other node.

Written as generators that yield what is to be called, and are sent what it gave: both kinds of connection run
the same.
"""

from __future__ import annotations

import json
import os
import secrets
import time
import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import psycopg
from psycopg import abc, conninfo, sql
from psycopg.adapt import AdaptersMap, Loader, PyFormat
from psycopg.pq import ConnStatus, TransactionStatus
from psycopg.rows import dict_row

from shardman.client import inner
from shardman.client.answers import Raw, RawDumper
from shardman.client.blocks import Block
from shardman.client.listening import Ear, ear_of
from shardman.client.routing.picture import HERE, Picture, read
from shardman.client.routing.values import KEY_TYPES
from shardman.names import client_part
from shardman.sql.loader import queries

#: What is yielded: it is called, and awaited where connections are asynchronous.
Call = Callable[[], Any]
Steps = Generator[Call, Any, Any]

IDLE = TransactionStatus.IDLE
_ENDED = (IDLE, TransactionStatus.UNKNOWN)
_AVOID_SECONDS = 5.0
_OWN_DUMPERS = "keys are sent in a way of your own: db.adapters"
#: A session that has rested for longer is looked at before a transaction begins on it.
_REST_SECONDS = 0.05
_PSYCOPG_OPTIONS = frozenset(
    ("autocommit", "row_factory", "cursor_factory", "prepare_threshold", "context")
)


@dataclass
class Sessions:
    """The state of a connection, and its sessions.

    Args:
        dsns: of the nodes that may be connected to, the first that answers is.
        options: of psycopg's connect.
        connect: psycopg's.
        refresh_seconds: how long the picture is believed.
    """

    dsns: Sequence[str]
    options: Mapping[str, Any]
    connect: Callable[..., Any]
    autocommit: bool
    refresh_seconds: float = 2.0
    sessions: dict[str, Any] = field(default_factory=dict)
    picture: Picture = field(default_factory=Picture)
    unfit: dict[str, float] = field(default_factory=dict)
    lost: bool = False
    pinned: str = ""
    blocks: list[Block] = field(default_factory=list)
    pipeline: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    #: The same without a method for it, and who wants notices.
    attributes: dict[str, Any] = field(default_factory=dict)
    notice_handlers: list[Callable[[Any], None]] = field(default_factory=list)
    #: The same of notifications on the node that was connected to, and the channels that are listened to there.
    notify_handlers: list[Callable[[psycopg.Notify], None]] = field(default_factory=list)
    channels: dict[str, None] = field(default_factory=dict)
    #: Of all sessions, and of those that are opened again.
    adapters: AdaptersMap | None = None
    ids: dict[str, int | None] = field(default_factory=dict)
    #: Of nodes that can have parts of transactions over several.
    numbers: dict[str, int] = field(default_factory=dict)
    closed: bool = False
    dsn: str = ""
    #: By which the shardlord knows which sessions are of one transaction.
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    _read_at: float = 0.0
    _ear: Ear | None = None
    _leave_ear: Callable[[], Any] = lambda: None
    #: What the ear had heard when the picture was read.
    _heard: int = 0
    _used: dict[str, float] = field(default_factory=dict)

    # -- sessions -------------------------------------------------------------------------------

    def open(self) -> Steps:
        """Connects to the first node that answers, and reads the picture.

        Raises:
            OperationalError: none of them does.
        """
        failed: psycopg.OperationalError | None = None
        for dsn in self.dsns:
            try:
                more = {"autocommit": True, "application_name": self._application(dsn)}
                here = yield partial(self.connect, dsn, **{**self.options, **more})
            except psycopg.OperationalError as error:
                failed = error
                continue
            self.sessions = {HERE: here}
            self._share_adapters(here)
            self.numbers.clear()
            self.dsn = dsn
            self.unfit.clear()
            self._take_ear(here)
            yield from self._read_picture(here)
            yield from self._hear_again(here)
            yield from self._set_up(here)
            return
        assert failed is not None
        raise failed

    def _share_adapters(self, session: Any) -> None:
        """What an application registers later holds on all nodes at once."""
        if self.adapters is None:
            self.adapters = Shared(session.adapters, self._send_otherwise)
            # Before there is any cursor, which keeps what it has found.
            self.adapters.register_dumper(Raw, RawDumper)
        inner.set_adapters(session, self.adapters)

    def _send_otherwise(self) -> None:
        """A dumper for values that may be keys was registered: they are hashed as psycopg sends them."""
        if self.adapters is not None and has_own_dumpers(self.adapters):
            self.picture = replace(self.picture, problem=_OWN_DUMPERS)
            self.forget()

    def _hear_again(self, here: Any) -> Steps:
        """What was listened to on the session in whose place this one is."""
        for handler in self.notify_handlers:
            here.add_notify_handler(handler)
        for channel in self.channels:
            text = sql.SQL(queries("client")["listen_again"]).format(sql.Identifier(channel))
            yield partial(here.execute, text, prepare=False)

    def _set_up(self, session: Any) -> Steps:
        for name, value in self.attributes.items():
            setattr(session, name, value)
        for handler in self.notice_handlers:
            session.add_notice_handler(handler)
        for name, value in self.settings.items():
            yield partial(getattr(session, f"set_{name}"), value)
        if not self.autocommit:
            yield lambda: session.set_autocommit(False)

    def set(self, name: str, value: Any) -> Steps:
        """Sets one of psycopg's attributes on all sessions; those that broke get it when they are opened again.

        Raises:
            ProgrammingError: a transaction is open.
        """
        if self.blocks:
            raise psycopg.ProgrammingError(
                f"can't change {name!r} now: connection.transaction() context in progress"
            )
        # Where one is open psycopg refuses, before another has changed.
        first = sorted(
            self.sessions.values(), key=lambda s: bool(s.pgconn.transaction_status == IDLE)
        )
        for session in first:
            if session.pgconn.status == ConnStatus.OK:
                yield partial(getattr(session, f"set_{name}"), value)
        if name == "autocommit":
            self.autocommit = value
        else:
            self.settings[name] = value

    def attribute(self, name: str, value: Any) -> None:
        """Sets an attribute on all sessions, those that are there and those that are to come."""
        self.attributes[name] = value
        for session in self.sessions.values():
            setattr(session, name, value)

    def session(self, node: str) -> Steps:
        """The session on a node, one that is alive as far as can be told without asking."""
        found = self.sessions.get(node)
        if found is not None and self.is_alive(node, found):
            return found
        if found is not None:
            yield found.close
            self.sessions.pop(node, None)
        if node != HERE:
            return (yield from self._open_other(node))
        if self.closed or self.pinned or self.bound() is not None:
            self.sessions[HERE] = found
            return found
        for other in list(self.sessions.values()):
            yield other.close
        yield from self.open()
        return self.sessions[HERE]

    def is_alive(self, node: str, session: Any) -> bool:
        """Whether a session is, as far as can be told without asking."""
        now = time.monotonic()
        rested = now - self._used.get(node, now) > _REST_SECONDS
        self._used[node] = now
        pgconn = session.pgconn
        if pgconn.status != ConnStatus.OK:
            return False
        if rested and pgconn.transaction_status == IDLE:
            try:
                # What a server says when it goes is there to be read.
                pgconn.consume_input()
                while (heard := pgconn.notifies()) is not None:
                    # psycopg waits for what is still to be read.
                    pgconn.notify_handler(heard)
            except psycopg.OperationalError:
                return False
        return bool(pgconn.status == ConnStatus.OK)

    def _application(self, dsn: str) -> str:
        params = conninfo.conninfo_to_dict(dsn, **self._libpq_options())
        name = params.get("application_name", os.environ.get("PGAPPNAME"))
        return client_part(str(name or params.get("fallback_application_name", "")), self.token)

    def connect_to(self, node: str, **more: Any) -> Steps:
        """A session on a node, in autocommit mode, of who is connected; ``more``: other parameters."""
        here = self.sessions[HERE]
        params = conninfo.conninfo_to_dict(self.dsn, **self._libpq_options())
        if node != HERE:
            for name in ("host", "hostaddr", "port", "dbname"):
                params.pop(name, None)
            params.update(self.picture.addresses[node])
        params["user"] = here.info.user
        if here.info.password:
            params["password"] = here.info.password
        dsn = conninfo.make_conninfo("", **{**params, **more})
        others = {k: v for k, v in self.options.items() if k in _PSYCOPG_OPTIONS}
        session = yield lambda: self.connect(dsn, **{**others, "autocommit": True})
        self._share_adapters(session)
        return session

    def _open_other(self, node: str) -> Steps:
        """A session on another node, set as the one here is."""
        name = self._application(self.dsn)
        session = yield from self.connect_to(node, application_name=name)
        try:
            there = yield from self._ask(session, "tables")
            names = list(self.picture.settings)
            values = [self.picture.settings[n] for n in names]
            yield from self._ask(session, "settings", (names, values))
            seen = yield from self._ask(session, "session")
            picture = read(there, seen[0])
            if picture.problem or picture.shape != self.picture.shape:
                self.avoid(node)
            yield from self._read_place(node, session, seen[0])
            yield from self._set_up(session)
        except BaseException:
            yield session.close
            raise
        self.sessions[node] = session
        self._used[node] = time.monotonic()
        return session

    def _libpq_options(self) -> dict[str, Any]:
        return {k: v for k, v in self.options.items() if k not in _PSYCOPG_OPTIONS}

    def _ask(self, session: Any, name: str, params: Any = None) -> Steps:
        cursor = own_cursor(session)
        yield lambda: cursor.execute(queries("client")[name], params, prepare=False)
        rows = yield cursor.fetchall
        return rows

    def look(self, subject: str, name: str, params: Any = None) -> Steps:
        """The first row that a query on the catalogs gives, None where it gives none. It is a part of the
        transaction that is open, and begins none."""
        session = yield from self.session(self.bound() or HERE)
        begins = not self.autocommit and session.pgconn.transaction_status == IDLE
        if begins:
            yield lambda: session.set_autocommit(True)
        cursor = own_cursor(session)
        try:
            yield lambda: cursor.execute(queries(subject)[name], params)
            row = yield cursor.fetchone
        finally:
            if begins and session.pgconn.status == ConnStatus.OK:
                yield lambda: session.set_autocommit(False)
        return row

    def open_beside(self) -> Steps:
        """A further session on the node that was connected to, set as that one, in autocommit mode. Who wants
        it closes it."""
        others = {k: v for k, v in self.options.items() if k != "autocommit"}
        session = yield lambda: self.connect(self.dsn, **{**others, "autocommit": True})
        self._share_adapters(session)
        names = list(self.picture.settings)
        values = [self.picture.settings[n] for n in names]
        yield from self._ask(session, "settings", (names, values))
        return session

    def _take_ear(self, here: Any) -> None:
        self._leave_ear()
        self._ear = ear_of(here)
        # Also when nobody closes the connection.
        self._leave_ear = weakref.finalize(self, self._ear.leave)

    def _listen(self, here: Any) -> Steps:
        """Opens the session that hears for all connections of this process, unless there is one. Where that
        fails the picture is looked at every ``refresh_seconds``, as always."""
        ear = self._ear
        if ear is None or not ear.wants_session():
            return
        where = {"host": here.info.host, "port": here.info.port}
        if "hostaddr" in conninfo.conninfo_to_dict(self.dsn, **self._libpq_options()):
            where["hostaddr"] = here.info.hostaddr
        try:
            session = yield from self.connect_to(HERE, **where)
        except psycopg.Error:
            return
        try:
            yield lambda: session.execute(queries("client")["listen"])
        except BaseException as error:
            session.pgconn.finish()
            if not isinstance(error, psycopg.Error):
                raise
            return
        ear.take(session)

    def _read_picture(self, here: Any) -> Steps:
        heard = 0 if self._ear is None else self._ear.heard
        tables = yield from self._ask(here, "tables")
        (session,) = yield from self._ask(here, "session")
        if session["sees_id"] and HERE not in self.ids:
            found = yield from self._ask(here, "id")
            self.ids[HERE] = found[0]["node_id"] if found else None
        if HERE not in self.numbers:
            yield from self._read_place(HERE, here, session)
        former, now = self.picture, read(tables, session)
        if has_own_dumpers(here.adapters):
            now = replace(now, problem=_OWN_DUMPERS)
        self._read_at, self._heard = time.monotonic(), heard
        if not now.is_as(former):
            # Plans hold tables, and tables hold where their partitions are.
            self.picture = now
            self.forget()
        if former.shape != now.shape:
            for node in [n for n in self.sessions if n != HERE]:
                yield self.sessions.pop(node).close
            self.unfit.clear()
        for node in [n for n, until in self.unfit.items() if until < self._read_at]:
            del self.unfit[node]
            if node in self.sessions:
                yield self.sessions.pop(node).close

    def _read_place(self, node: str, session: Any, seen: Mapping[str, Any]) -> Steps:
        """Whether a node can have a part of a transaction over several, and its number."""
        found = (yield from self._ask(session, "place")) if seen["has_place"] else []
        self.numbers.pop(node, None)
        if found:
            self.numbers[node] = found[0]["node"]

    def forget(self) -> None:
        """What was made of the former picture."""

    def avoid(self, node: str) -> None:
        """Its partitions are reached through routes, for a while."""
        self.unfit[node] = time.monotonic() + _AVOID_SECONDS

    def outdated(self) -> None:
        """The picture is wrong: it is read again before the next transaction."""
        self._read_at = 0.0

    def is_old(self) -> bool:
        """Whether the picture is to be read again: after a while, or because a node has said so."""
        if time.monotonic() - self._read_at >= self.refresh_seconds:
            return True
        return self._ear is not None and self._ear.listen() != self._heard

    def refresh(self, *, now: bool = False) -> Steps:
        """Reads the picture again when it is old; not inside of a transaction."""
        if not now and not self.is_old():
            return
        if self.pinned == "session" or self.pipeline is not None or self.bound() is not None:
            return
        here = yield from self.session(HERE)
        if here.pgconn.transaction_status != IDLE:
            return
        if not self.autocommit:
            yield lambda: here.set_autocommit(True)
        try:
            yield from self._listen(here)
            yield from self._read_picture(here)
        finally:
            if not self.autocommit and here.pgconn.status == ConnStatus.OK:
                yield lambda: here.set_autocommit(False)

    def bound(self) -> str | None:
        """The first node of the transaction that is open."""
        return next(iter(self.parts()), None)

    def parts(self) -> list[str]:
        """All nodes of the transaction that is open."""
        if self.pipeline is not None:
            return [self.pipeline]
        found = [n for block in self.blocks for n in block.entered]
        for node, session in self.sessions.items():
            if session.pgconn.transaction_status not in _ENDED:
                found.append(node)
        # In their order, each once.
        return list(dict.fromkeys(found))


class Shared(AdaptersMap):
    """Adapters of all sessions of a connection.

    Args:
        template: what they are at first.
        changed: is called behind each dumper that is registered.
    """

    def __init__(self, template: AdaptersMap, changed: Callable[[], None]) -> None:
        super().__init__(template)
        self._changed = weakref.WeakMethod(changed)

    def register_dumper(self, cls: type | str | None, dumper: type[abc.Dumper]) -> None:
        """As psycopg's."""
        super().register_dumper(cls, dumper)
        changed = self._changed()
        if changed is not None:
            changed()


class _Json(Loader):
    def load(self, data: Any) -> Any:
        return json.loads(bytes(data))


#: psycopg's ways, whatever an application registers later: what we ask for ourselves is read by them.
_ADAPTERS = AdaptersMap(psycopg.adapters)
_ADAPTERS.register_loader("jsonb", _Json)


def own_cursor(session: Any) -> Any:
    """A cursor for questions of ours: rows by name, and none of the adapters that an application has set."""
    cursor = session.cursor(row_factory=dict_row)
    inner.set_adapters(cursor, AdaptersMap(_ADAPTERS))
    return cursor


def has_own_dumpers(adapters: Any) -> bool:
    """Whether a value that may be a key is sent as psycopg does not send it by itself."""
    return not all(
        adapters.get_dumper(kind, PyFormat.AUTO).__module__.startswith("psycopg")
        for kind in KEY_TYPES
    )
