"""What is asked of one server."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from shardman.errors import UserError
from shardman.pg import strangers
from shardman.pg.bounded import BoundedConnection
from shardman.pg.connect import PINNED
from shardman.pg.connection import Connection
from shardman.pg.conninfo import parse
from shardman.pg.server import unmet
from shardman.pg.text_rules import TextRules, text_rules
from shardman.pg.wording import unreachable
from shardman.sql.loader import queries

LIMIT_S = 10.0
_TRIES = 5
_HERE = ("", "localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Setting:
    """One of the server's.

    Args:
        value: in the unit that pg_settings has.
        context: what a change takes: ``postmaster`` is a restart.
    """

    value: str
    context: str
    unit: str = ""


@dataclass(frozen=True)
class Facts:
    """What one server has said.

    Args:
        name: of the server, for people.
        node: its number where it is a member of a cluster.
        partitions: of its cluster's largest table.
        said: the answer to the query `server` of queries/doctor.sql.
        faults: what `requirements` has against it.
        clock: how far its clock is before ours, in seconds.
        latency: of an empty question from here, in seconds.
        local: it is reached without a network.
        free: bytes that are free where its data are; known only on the same machine.
    """

    name: str
    node: int | None
    partitions: int
    said: Mapping[str, Any]
    settings: Mapping[str, Setting]
    text: TextRules
    faults: tuple[UserError, ...]
    clock: float
    latency: float
    local: bool
    free: int | None = None


async def connect(dsn: str) -> Connection:
    """A session in which nothing is set, so that the settings are those of the application's sessions.

    Raises:
        UserError: the server cannot be reached.
    """
    given = parse(dsn)
    try:
        conn = await BoundedConnection.connect(
            make_conninfo(dsn, application_name="shardman doctor", connect_timeout=5),
            autocommit=True,
        )
    except psycopg.OperationalError as error:
        raise unreachable(given, error) from None
    conn.limit_s = LIMIT_S
    return conn


async def gather(conn: Connection, name: str) -> Facts:
    """Asks for everything. The session is set as all of ours afterwards."""
    sql = queries("doctor")
    settings = {
        row[0]: Setting(*row[1:]) for row in await (await conn.execute(sql["settings"])).fetchall()
    }
    await conn.execute(PINNED)
    (said,) = await _one(conn, sql["server"])
    cluster, node, partitions = await _member(conn)
    clock, latency = await _clock(conn)
    local = not conn.info.host or conn.info.host.startswith("/") or conn.info.host in _HERE
    return Facts(
        name=name if node is None else f"node {node}",
        node=node,
        partitions=partitions,
        said={**said, "cluster": cluster},
        settings=settings,
        text=await text_rules(conn),
        # Of a member the nodes' own role is judged, not whoever looks.
        faults=() if node is not None and not said["owner"] else await _faults(conn),
        clock=clock,
        latency=latency,
        local=local,
        free=_free(settings, conn.info.port) if local else None,
    )


async def _one(conn: Connection, query: Any) -> tuple[Any, ...]:
    row = await (await conn.execute(query)).fetchone()
    assert row is not None
    return tuple(row)


async def _member(conn: Connection) -> tuple[str | None, int | None, int]:
    try:
        row = await (await conn.execute(queries("doctor")["member"])).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        row = None
    except psycopg.errors.InsufficientPrivilege:
        row = None
    return tuple(row) if row else (None, None, 0)


async def _faults(conn: Connection) -> tuple[UserError, ...]:
    found = await unmet(conn)
    for check in (strangers.refuse_schema, strangers.refuse_servers):
        try:
            await check(conn)
        except UserError as error:
            found.append(error)
    return tuple(found)


async def _clock(conn: Connection) -> tuple[float, float]:
    """The offset as the quickest of some answers has it, and how long that took."""
    best = (0.0, float("inf"))
    for _ in range(_TRIES):
        before = time.time()
        (there,) = await _one(conn, queries("doctor")["clock"])
        after = time.time()
        if after - before < best[1]:
            best = (there - (before + after) / 2, after - before)
    return best


def _free(settings: Mapping[str, Setting], port: int) -> int | None:
    """What is free under the data directory, where that is on this machine and may be looked at."""
    directory = settings.get("data_directory")
    if directory is None or not directory.value:
        return None
    try:
        lines = (Path(directory.value) / "postmaster.pid").read_text("utf-8").splitlines()
        if len(lines) < 4 or lines[3].strip() != str(port):
            return None
        return shutil.disk_usage(directory.value).free
    except OSError:
        return None
