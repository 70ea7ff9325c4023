"""Sessions on one server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, LiteralString

import psycopg
from psycopg.rows import dict_row

from shardman.pg.connection import Connection, SyncConnection
from shardman.pg.conninfo import parse
from shardman.pg.wording import unreachable

_OURS: dict[str, Any] = {
    "application_name": "shardman cli",
    "connect_timeout": 5,
    "autocommit": True,
}

#: What every session of ours is begun with, as libpq's parameter `options`: a timeout that was set for the
#: application could end even the statement that sets the rest.
UNDISTURBED = " ".join(
    f"-c {name}"
    for name in (
        "statement_timeout=0",
        "lock_timeout=0",
        "idle_in_transaction_session_timeout=0",
        "idle_session_timeout=0",
        "default_transaction_read_only=off",
    )
)

#: What every session of ours sets first. Values are written and read alike on every node and by every
#: version, whatever its server, its database, or the role, has set for the application.
PINNED: LiteralString = """
select set_config('default_transaction_isolation', 'read committed', false),
       set_config('default_transaction_read_only', 'off', false),
       set_config('default_transaction_deferrable', 'off', false),
       set_config('DateStyle', 'ISO, MDY', false), set_config('IntervalStyle', 'postgres', false),
       set_config('extra_float_digits', '3', false), set_config('bytea_output', 'hex', false),
       set_config('array_nulls', 'on', false), set_config('quote_all_identifiers', 'off', false),
       set_config('standard_conforming_strings', 'on', false),
       -- Compiling a query of ours takes seconds, running it milliseconds.
       set_config('jit', 'off', false),
       -- Nor does a timeout that was set for the application end what we do.
       (select count(set_config(name, '0', false))
          from unnest(array['statement_timeout', 'lock_timeout', 'idle_session_timeout',
                            'idle_in_transaction_session_timeout', 'transaction_timeout']) as name
         where current_setting(name, true) is not null)
"""


def undisturbed(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a session of ours is begun with, beside what it is given: `options`, and that it is none for
    replication, whatever the string of its user says."""
    options = f"{given.get('options') or ''} {UNDISTURBED}".strip()
    return {"options": options, **({"replication": "false"} if given.get("replication") else {})}


def connect(dsn: str, **overrides: Any) -> SyncConnection:
    """A session in autocommit mode; rows are dictionaries.

    Args:
        overrides: parameters of libpq and of psycopg that differ from those of dsn and from ours.

    Raises:
        UserError: the string cannot be read, or the server cannot be reached.
    """
    given: dict[str, Any] = dict(parse(dsn))
    try:
        params = {**given, **overrides}
        conn = psycopg.connect(
            "", **{**_OURS, "row_factory": dict_row, **params, **undisturbed(params)}
        )
        conn.execute(PINNED)
    except psycopg.OperationalError as error:
        raise unreachable(given, error) from None
    if not conn.autocommit:
        conn.commit()
    return conn


async def connect_async(dsn: str) -> Connection:
    """The same for asyncio; rows are tuples, as the effects on one server expect them."""
    given: dict[str, Any] = dict(parse(dsn))
    try:
        conn = await psycopg.AsyncConnection.connect("", **{**_OURS, **given, **undisturbed(given)})
        await conn.execute(PINNED)
    except psycopg.OperationalError as error:
        raise unreachable(given, error) from None
    return conn
