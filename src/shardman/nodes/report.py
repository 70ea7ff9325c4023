"""What helps whoever looks into a bug: how the cluster is, without a password or a row of anybody's."""

from __future__ import annotations

import contextlib
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psycopg

from shardman.errors import UserError
from shardman.nodes import status
from shardman.nodes.doctor import examine
from shardman.nodes.invariants import check
from shardman.nodes.reach import NodeError, Reach
from shardman.nodes.veil import Veil
from shardman.pg.connection import SyncConnection
from shardman.pg.conninfo import SECRETS, parse
from shardman.pg.wording import plain
from shardman.sql.loader import queries

#: Of a command's, what may have anything in it.
_LEFT_OUT = {"opts", "result", "result_data", "submitted_by"}

README = """A report of a pg_shardman cluster, made {when}.

about       versions of the program and its surroundings
status      shardman status --json
check       shardman check
doctor      shardman doctor
commands    the last 200 commands, the steps of those that failed or run
settings    of each server: those that were changed; numbers, yes or no, and words of a list only

Passwords are in none of them. What PostgreSQL or we put in quotes or parentheses, where values of rows
may be, is "…"; names of tables, roles and nodes, and addresses, are there. Read it before you give it
away. The shardlord's log is not in it: add it yourself, when you have read it.
"""


async def report(dsn: str) -> tuple[str, dict[str, Any]]:
    """The text of a README, and the documents by name.

    Raises:
        UserError: the node cannot be reached, or is in no cluster.
    """
    with Reach(dsn) as reach:
        veil = _veil(reach)
        documents = dict(_of_cluster(reach))
    try:
        documents["doctor"] = vars(await examine([dsn]))
    except (UserError, psycopg.Error) as error:
        documents["doctor"] = {"error": str(error)}
    veiled = {name: veil.value(_plain(document)) for name, document in documents.items()}
    return README.format(when=datetime.now(UTC).isoformat(timespec="seconds")), veiled


def _veil(reach: Reach) -> Veil:
    names = [row["relation"] for row in reach.here.execute(queries("report")["names"])]
    secrets = [v for k, v in parse(reach.dsn).items() if k in SECRETS]
    # Whoever may not read them has seen none.
    with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
        secrets += [row["password"] for row in reach.here.execute(queries("report")["secrets"])]
    return Veil(names, [*secrets, reach.here.info.password or ""])


def _of_cluster(reach: Reach) -> Iterator[tuple[str, Any]]:
    yield "about", _about()
    now = status.read(reach.dsn)
    yield "status", {**vars(now), "commands": [_short(row) for row in now.commands]}
    yield "check", _said(lambda: [asdict(f) for f in check(reach.dsn, False, 1.0)])
    sql = queries("report")
    yield "commands", reach.here.execute(sql["commands"]).fetchall()
    yield "steps", reach.here.execute(sql["steps"]).fetchall()
    answers = reach.everywhere(lambda _, session: _settings(session))
    yield "settings", {n: str(a) if isinstance(a, NodeError) else a for n, a in answers.items()}


def _said(work: Any) -> Any:
    try:
        return work()
    except UserError as error:
        return {"error": str(error)}
    except psycopg.Error as error:
        return {"error": plain(error)}


def _short(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k not in _LEFT_OUT}


def _settings(session: SyncConnection) -> dict[str, str]:
    rows = session.execute(queries("report")["settings"]).fetchall()
    return {r["name"]: r["reset_val"] for r in rows}


def _about() -> dict[str, str]:
    about = {"python": sys.version.split()[0], "platform": platform.platform()}
    about["libpq"] = str(psycopg.pq.version())
    for package in ("pg-shardman", "psycopg"):
        try:
            about[package] = version(package)
        except PackageNotFoundError:
            about[package] = "not installed"
    return about


def _plain(value: Any) -> Any:
    """Dataclasses as dictionaries."""
    if hasattr(value, "__dataclass_fields__"):
        return _plain({name: getattr(value, name) for name in value.__dataclass_fields__})
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
