"""Connection strings in Python: what others may know of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, LiteralString

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from shardman.errors import UserError

#: Values are written and read alike on every node and by every version, whatever its database, or the
#: role, has set for the application.
PINNED: LiteralString = """
select set_config('default_transaction_isolation', 'read committed', false),
       set_config('default_transaction_read_only', 'off', false),
       set_config('default_transaction_deferrable', 'off', false),
       set_config('DateStyle', 'ISO, MDY', false), set_config('IntervalStyle', 'postgres', false),
       set_config('extra_float_digits', '3', false), set_config('bytea_output', 'hex', false),
       set_config('array_nulls', 'on', false), set_config('quote_all_identifiers', 'off', false),
       set_config('standard_conforming_strings', 'on', false)
"""

#: Parameters that are never shown or stored beside the others.
SECRETS = frozenset(
    {"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"}
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
    return {k: str(v) for k, v in given.items() if v is not None}


def unreadable() -> UserError:
    """The sentence for a malformed connection string."""
    return UserError(
        "the connection string cannot be read",
        "Write it as host=... port=... dbname=... user=... or postgresql://user@host:port/dbname",
    )


def without_secrets(conninfo: str) -> str:
    """The connection string as it may be shown."""
    return make_conninfo(**{k: v for k, v in parse(conninfo).items() if k not in SECRETS})


def address_only(params: Mapping[str, str]) -> dict[str, str]:
    """Of some parameters those that say how to reach a server, without secrets."""
    return {k: v for k, v in params.items() if k not in SECRETS and k not in _NOT_AN_ADDRESS}


def resolved(conn: AsyncConnection[Any], conninfo: str) -> dict[str, str]:
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


def password_of(conn: AsyncConnection[Any]) -> str | None:
    """The password that a live connection was given or found in a password file, if any."""
    return conn.info.password or None
