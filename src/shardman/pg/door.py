"""What a server says to whoever comes to its door, before it asks who that is.

libpq does not tell the SQLSTATE of a connection that was refused, and the sentence is in the server's
language. So a server without a connection left is told from one that is down by asking it here.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping
from typing import Any

#: No connection is left.
FULL = "53300"
#: How long an answer may take, in seconds.
ANSWER_S = 2.0
_PROTOCOL = 196608
_PORT = "5432"


def is_full(params: Mapping[str, Any]) -> bool:
    """Whether a server that refuses a session does so because no connection is left."""
    return refusal(params) == FULL


def refusal(params: Mapping[str, Any]) -> str | None:
    """The SQLSTATE with which a server refuses a session at once; None where it goes on to ask for a
    password, or does not answer.

    Args:
        params: libpq's; of several hosts the first is asked.
    """
    given = {k: str(v) for k, v in params.items() if v is not None}
    try:
        with _connect(given) as door:
            door.settimeout(ANSWER_S)
            door.sendall(_startup(given))
            kind, size = struct.unpack("!cI", _exactly(door, 5))
            return _sqlstate(_exactly(door, size - 4)) if kind == b"E" else None
    except (OSError, ValueError):
        return None


def _connect(params: dict[str, str]) -> socket.socket:
    host = (params.get("hostaddr") or params.get("host") or "localhost").split(",")[0]
    port = (params.get("port") or os.environ.get("PGPORT") or _PORT).split(",")[0]
    if not host.startswith("/"):
        return socket.create_connection((host, int(port)), timeout=ANSWER_S)
    door = socket.socket(socket.AF_UNIX)
    door.settimeout(ANSWER_S)
    door.connect(f"{host}/.s.PGSQL.{port}")
    return door


def _exactly(door: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        more = door.recv(size - len(got))
        if not more:
            raise ConnectionResetError
        got += more
    return got


def _startup(params: dict[str, str]) -> bytes:
    user = params.get("user") or "postgres"
    said = {"user": user, "database": params.get("dbname") or user}
    body = b"".join(f"{k}\0{v}\0".encode() for k, v in said.items()) + b"\0"
    return struct.pack("!II", len(body) + 8, _PROTOCOL) + body


def _sqlstate(error: bytes) -> str | None:
    """Of an ErrorResponse."""
    fields = (field for field in error.split(b"\0") if field)
    return next((field[1:].decode("ascii") for field in fields if field[:1] == b"C"), None)
