"""Who looks: sessions of viewers, opened with the name and the password of a role, in memory only."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from psycopg.conninfo import make_conninfo

from shardman.errors import Code, UserError
from shardman.nodes.reach import Reach
from shardman.pg.conninfo import parse

#: Seconds without a request, and in all, after which a session ends.
IDLE_S = 30 * 60.0
WHOLE_S = 12 * 3600.0
#: Failed attempts from one address within a minute, after which no more are made.
ATTEMPTS = 5
MINUTE_S = 60.0


@dataclass
class Login:
    """A viewer's session.

    Args:
        role: whose rights decide what is shown.
        dsn: of any node as this role; holds the password.
        csrf: what a form must send back.
    """

    role: str
    dsn: str
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    begun: float = field(default_factory=time.monotonic)
    seen: float = field(default_factory=time.monotonic)


class TooManyAttempts(UserError):
    """Somebody guesses passwords, or mistypes his."""

    def __init__(self) -> None:
        super().__init__(
            "too many attempts from your address failed", "Wait a minute", code=Code.BUSY
        )


class Logins:
    """All sessions, by the secret of their cookie.

    Args:
        dsns: of nodes, without a role: whoever logs in names his own.
    """

    def __init__(self, dsns: Sequence[str]) -> None:
        self._dsns = dsns
        self._open: dict[str, Login] = {}
        self._failed: dict[str, deque[float]] = {}

    def open(self, role: str, password: str, address: str) -> str:
        """Begins a session; returns its secret. Not to be called in an event loop.

        Raises:
            UserError: no node lets the role in, or it may not read the metadata.
        """
        self._need_patience(address)
        login = Login(role, self._let_in(role, password, address))
        token = secrets.token_urlsafe(32)
        self._open[token] = login
        return token

    def _let_in(self, role: str, password: str, address: str) -> str:
        refused: UserError | None = None
        for dsn in self._dsns:
            own = make_conninfo("", **{**_place(dsn), "user": role, "password": password})
            try:
                _prove(own, password)
                return own
            except UserError as error:
                refused = refused or error
        assert refused is not None
        self._failed.setdefault(address, deque()).append(time.monotonic())
        raise refused

    def _need_patience(self, address: str) -> None:
        now = time.monotonic()
        for other, times in list(self._failed.items()):
            while times and now - times[0] > MINUTE_S:
                times.popleft()
            if not times:
                del self._failed[other]
        if len(self._failed.get(address, ())) >= ATTEMPTS:
            raise TooManyAttempts

    def find(self, token: str | None) -> Login | None:
        """The session of a cookie, unless it has ended; it goes on from now."""
        now = time.monotonic()
        for key, each in list(self._open.items()):
            if now - each.seen > IDLE_S or now - each.begun > WHOLE_S:
                del self._open[key]
        login = self._open.get(token or "")
        if login is not None:
            login.seen = now
        return login

    def close(self, token: str | None) -> None:
        """Ends a session."""
        self._open.pop(token or "", None)


def _place(dsn: str) -> dict[str, str]:
    """A connection string without whose it is: nobody may come in as the role that serves the page."""
    return {k: v for k, v in parse(dsn).items() if k not in _WHOSE}


_WHOSE = {
    "user",
    "password",
    "passfile",
    "service",
    "sslcert",
    "sslkey",
    "sslpassword",
    "requirepeer",
}


def _prove(dsn: str, password: str) -> None:
    """The server itself has asked for the password, and found it right.

    Raises:
        UserError: it has not, or the role may not look.
    """
    # Without one libpq would take that of this process, out of its environment or files.
    if not password:
        raise UserError("there is no password", "Give it", code=Code.PERMISSION_DENIED)
    with Reach(dsn) as reach:
        # Where it trusts whoever comes from here, anybody could be anyone.
        if not reach.here.pgconn.used_password:
            raise UserError(
                "the server asks for no password, so nobody can prove who he is",
                "Let pg_hba.conf ask for one (scram-sha-256) from where the page is served",
                code=Code.PERMISSION_DENIED,
            )
