"""Connection strings: reading them, and what others may know of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from shardman.errors import Code, UserError
from shardman.pg.connection import Connection

#: Parameters that are never shown or stored beside the others.
SECRETS = frozenset(
    {"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"}
)
URI_PREFIXES = ("postgresql://", "postgres://")
FORM_HINT = (
    "Write it as host=... port=... dbname=... user=... or postgresql://user@host:port/dbname"
)
TORN_HINT = (
    "In a URI write the characters / ? # @ : % of a password as %2F %3F %23 %40 %3A %25,"
    " or use the form host=... password='...'"
)
#: What says how to reach a server, as opposed to how one session wants to be treated.
_NOT_AN_ADDRESS = frozenset(
    {
        "application_name",
        "fallback_application_name",
        "client_encoding",
        "options",
        "replication",
        "service",
        "servicefile",
        "passfile",
        "connect_timeout",
        "keepalives",
        "keepalives_idle",
        "keepalives_interval",
        "keepalives_count",
        "tcp_user_timeout",
    }
)
#: What a service may stand for. The libpq that we run with may know, and report, more parameters
#: than the servers' own, which would not take them.
_OF_A_SERVICE = frozenset(
    {
        "host",
        "port",
        "dbname",
        "user",
        "sslmode",
        "sslcert",
        "sslkey",
        "sslrootcert",
        "sslcrl",
        "sslcrldir",
        "channel_binding",
        "gssencmode",
        "krbsrvname",
        "requirepeer",
        "target_session_attrs",
    }
)


def parse(conninfo: str) -> dict[str, str]:
    """The parameters of a connection string.

    Raises:
        UserError: it cannot be read. libpq quotes the part it stumbled over, which may be a
            password; we do not.
    """
    try:
        given = conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError:
        raise unreadable() from None
    if conninfo.startswith(URI_PREFIXES) and _is_torn(given):
        raise unreadable(TORN_HINT)
    return {k: str(v) for k, v in given.items() if v is not None}


def _is_torn(params: Mapping[str, Any]) -> bool:
    """Whether a URI was cut in the middle of its password, by one of / ? # @ that stands there unencoded: then
    libpq takes a part of it for a host, a port or a database, and these are shown."""
    where = [str(params.get(name) or "") for name in ("host", "port", "dbname")]
    ports = [port for port in where[1].split(",") if port]
    # The name of an abstract socket begins with an @.
    return any("@" in value[1:] for value in where) or not all(map(str.isdigit, ports))


def unreadable(hint: str = FORM_HINT) -> UserError:
    """The sentence for a malformed connection string."""
    return UserError(
        "the connection string cannot be read",
        hint,
        code=Code.BAD_CONNECTION_STRING,
    )


def without_secrets(conninfo: str) -> str:
    """The connection string as it may be shown."""
    return make_conninfo(**{k: v for k, v in parse(conninfo).items() if k not in SECRETS})


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


def address_only(params: Mapping[str, str]) -> dict[str, str]:
    """Of some parameters those that say how to reach a server, without secrets."""
    return {k: v for k, v in params.items() if k not in SECRETS and k not in _NOT_AN_ADDRESS}


def resolved(conn: Connection, conninfo: str) -> dict[str, str]:
    """Parameters that reach the server of a live connection from elsewhere, without secrets.

    Args:
        conn: the connection.
        conninfo: the string it was made of. Its hosts are kept, all of them; a service, which other
            machines may not have, is replaced by what it stood for.
    """
    given = parse(conninfo)
    live = {k: str(v) for k, v in conn.info.get_parameters().items() if k in _OF_A_SERVICE}
    return address_only(
        {
            "host": conn.info.host,
            "port": str(conn.info.port),
            "dbname": conn.info.dbname,
            "user": conn.info.user,
            **(live if "service" in given else {}),
            **given,
        }
    )


def password_of(conn: Connection) -> str | None:
    """The password that a live connection was given or found in a password file, if any."""
    return conn.info.password or None
