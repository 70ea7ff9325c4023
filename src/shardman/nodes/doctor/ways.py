"""Whether the servers reach each other: from each to each, by postgres_fdw, as they would in the cluster."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

import psycopg
from psycopg import sql

from shardman.nodes.doctor.finding import Diagnosis, Level
from shardman.pg.connection import Connection
from shardman.pg.conninfo import password_of, resolved
from shardman.pg.wording import plain
from shardman.sql.loader import queries

#: A question through postgres_fdw is DECLARE, FETCH and CLOSE.
_ROUND_TRIPS = 3
SLOW_S = 0.005
_ASKED = 3


@dataclass(frozen=True)
class Target:
    """A server that others are to reach.

    Args:
        name: for people.
        dsn: as it was given.
        conn: a session on it.
    """

    name: str
    dsn: str
    conn: Connection


@dataclass(frozen=True)
class Way:
    """From one server to another. ``latency``: there and back, in seconds; ``fault``: what is in the way."""

    source: str
    target: str
    latency: float | None = None
    fault: Diagnosis | None = None


async def try_way(source: Target, target: Target) -> Way:
    """Makes what is needed in a transaction that is rolled back: nothing is left."""
    me = await (await target.conn.execute(queries("doctor")["me"])).fetchone()
    conn = source.conn
    try:
        async with conn.transaction(force_rollback=True):
            await _quiet(conn)
            await _make_way(conn, target)
            found = await (await conn.execute(queries("doctor")["through"], me)).fetchone()
            if found != (True,):
                return Way(source.name, target.name, fault=_elsewhere(source, target))
            return Way(source.name, target.name, latency=await _latency(conn))
    except psycopg.errors.InsufficientPrivilege as error:
        return Way(source.name, target.name, fault=_not_tried(source, target, error))
    except psycopg.Error as error:
        return Way(source.name, target.name, fault=_no_way(source, target, error))


async def _quiet(conn: Connection) -> None:
    """The password that the next statement has in it does not get into the server's log."""
    with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
        async with conn.transaction():
            await conn.execute(
                "select set_config('log_statement', 'none', true), set_config('log_min_duration_statement',"
                " '-1', true), set_config('log_min_error_statement', 'panic', true)"
            )
    with contextlib.suppress(psycopg.Error):
        # In a cluster it is made on this server only, like everything that is rolled back.
        await conn.execute("select set_config('shardman.ddl', 'here', true)")


async def _make_way(conn: Connection, target: Target) -> None:
    address = {**resolved(target.conn, target.dsn), "connect_timeout": "5"}
    user, password = address.pop("user"), password_of(target.conn)
    login = {"user": user, **({"password": password} if password is not None else {})}
    await conn.execute("create extension if not exists postgres_fdw")
    await conn.execute(
        sql.SQL(
            "create server shardman_doctor foreign data wrapper postgres_fdw options ({})"
        ).format(_options(address))
    )
    await conn.execute(
        sql.SQL("create user mapping for current_user server shardman_doctor options ({})").format(
            _options(login)
        )
    )
    await conn.execute(
        "create foreign table pg_temp.shardman_doctor (pid int, backend_start timestamptz)"
        " server shardman_doctor options (schema_name 'pg_catalog', table_name 'pg_stat_activity')"
    )


def _options(given: dict[str, str]) -> sql.Composed:
    return sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(k), sql.Literal(v)) for k, v in given.items()
    )


async def _latency(conn: Connection) -> float:
    """Of one message there and back."""
    query = "select from pg_temp.shardman_doctor where pid = 0"
    best = float("inf")
    for _ in range(_ASKED):
        began = time.monotonic()
        await conn.execute("select")
        between = time.monotonic()
        await conn.execute(query)
        best = min(best, (time.monotonic() - between) - (between - began))
    return max(best, 0.0) / _ROUND_TRIPS


def _elsewhere(source: Target, target: Target) -> Diagnosis:
    return Diagnosis(
        Level.ERROR,
        source.name,
        f"the address of {target.name} leads to another server or database from here",
        hint="Give an address that is the same server's on all machines; localhost and sockets are not",
    )


def _not_tried(source: Target, target: Target, error: psycopg.Error) -> Diagnosis:
    return Diagnosis(
        Level.NOTE,
        source.name,
        f"the way to {target.name} was not tried: {plain(error)}",
        hint="Connect as the role that the nodes have among themselves",
    )


def _no_way(source: Target, target: Target, error: psycopg.Error) -> Diagnosis:
    diag = error.diag
    said = ": ".join(part for part in (plain(error), diag.message_detail or "") if part)
    info = target.conn.info
    return Diagnosis(
        Level.ERROR,
        source.name,
        f"cannot reach {target.name} at {info.host}:{info.port}: {_without_password(said, target)}",
        hint=f"Let it in there, in pg_hba.conf of {target.name} (host {info.dbname} {info.user}"
        f" ADDRESS/32 scram-sha-256, then select pg_reload_conf()), and in firewalls and listen_addresses",
    )


def _without_password(said: str, target: Target) -> str:
    return plain(psycopg.Error(said.replace("\n", " ")), {"password": password_of(target.conn)})
