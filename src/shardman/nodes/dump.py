"""`shardman dump`: the rows of all partitions and of one copy of each shared table, as scripts for psql.

All nodes are asked for one picture: for an instant no transaction writes to any of the tables, on any node, and
in this instant each node's snapshot is taken. A transaction over several nodes holds its locks on each until it
has committed there, so none is seen half. Where the locks cannot be had, for somebody writes all the time,
the snapshots are taken while commits over several nodes are held: whole are those of `shardman.connect` then.
Where that is not to be had either, each node has a picture of its own. The dump says which it is.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from shardman.errors import Code, UserError
from shardman.nodes.holding import hold_commits
from shardman.nodes.reach import Reach
from shardman.pg.connection import SyncConnection
from shardman.sql.loader import queries

#: How long writers wait for us at most in a try, and how often is tried.
LOCK_MS = 500
TRIES = 8
PAUSE_S = 0.15
#: How often commits over several nodes are held instead.
HELD_TRIES = 2
MANIFEST = "manifest.json"
#: What the manifest has of each shared table.
_OF_SHARED = (
    "relation",
    "create_sql",
    "index_sql",
    "foreign_keys",
    "triggers",
    "columns",
    "tops",
)
HEAD = (
    "\\set ON_ERROR_STOP on\n\\encoding UTF8\nset standard_conforming_strings = on;\n"
    "select pg_catalog.set_config('search_path', 'pg_catalog', false);\n"
)


class Picture(StrEnum):
    """What is whole in it, of transactions over several nodes."""

    ALL = "all"
    CLIENTS = "clients"
    """Those of `shardman.connect`."""
    NONE = "none"


@dataclass(frozen=True)
class Part:
    """A partition, or the copy of a shared table, that is dumped: by whom, into which file."""

    name: str
    relation: str
    node: int
    k: int
    file: str
    shared: bool = False


def dump(
    reach: Reach, directory: Path, tables: Sequence[str] | None, say: Callable[[str], None]
) -> Picture:
    """Writes the rows of sharded and shared tables into a new directory.

    Args:
        tables: their names; None: all there are.
        say: is told how far it is.

    Returns:
        Which transactions over several nodes are in it wholly or not at all.

    Raises:
        UserError: the directory is not empty, a table is not there, or a node cannot be reached.
    """
    if directory.exists() and any(directory.iterdir()):
        raise UserError(f"{directory} is not empty", "Name a new directory", code=Code.BAD_ARGUMENT)
    with ExitStack() as stack:
        lord = stack.enter_context(reach.open(reach.lord))
        found, shared = _tables(lord, tables), _shared(lord, tables)
        _need_known(lord, tables, {t["relation"] for t in (*found, *shared)})
        sessions, parts, picture = _picture(
            reach, lord, [t["relation"] for t in found], [s["relation"] for s in shared], stack
        )
        (directory / "data").mkdir(parents=True, exist_ok=True)
        rows = _copy_all(sessions, parts, directory, say)
        copies = {p.relation: p for p in parts if p.shared}
        shared = [_shared_table(sessions[p.node], p) for p in copies.values()]
        for table in (*shared, *found):
            mine = [p for p in parts if p.relation == table["relation"]]
            table["columns"] = _data(sessions[mine[0].node], mine[0])["columns"]
            table["tops"] = _tops(sessions, mine, table["definition"]["sequences"])
        _write(directory, shared, found, parts, rows, picture)
    return picture


def _tables(lord: SyncConnection, wanted: Sequence[str] | None) -> list[dict[str, Any]]:
    names = None if wanted is None else list(wanted)
    return lord.execute(queries("dump")["tables"], {"tables": names}).fetchall()


def _shared(lord: SyncConnection, wanted: Sequence[str] | None) -> list[dict[str, Any]]:
    """The shared tables, each with a node that has a copy."""
    names = None if wanted is None else list(wanted)
    found = lord.execute(queries("dump")["shared"], {"tables": names}).fetchall()
    for table in found:
        if table["node"] is None:
            raise UserError(
                f"no node has a copy of {table['relation']} that is in use",
                "Try again when a node that has one is back; or name the other tables with --table",
                code=Code.NO_SUCH_COPY,
            )
    return found


def _shared_table(conn: SyncConnection, part: Part) -> dict[str, Any]:
    """What it is, as the node with the dumped copy has it."""
    row = conn.execute(queries("dump")["shared_table"], (part.relation, part.relation)).fetchone()
    assert row is not None
    return {"relation": part.relation, **row}


def _need_known(lord: SyncConnection, wanted: Sequence[str] | None, known: Collection[str]) -> None:
    for name in wanted or ():
        row = lord.execute(queries("dump")["normal"], (name,)).fetchone()
        if row is not None and row["name"] not in known:
            raise UserError(
                f"{name} is no sharded table, nor a shared one",
                "See shardman.tables and shardman.shared_tables",
                code=Code.NOT_SHARDED,
            )


def _picture(
    reach: Reach, lord: SyncConnection, relations: list[str], shared: list[str], stack: ExitStack
) -> tuple[dict[int, SyncConnection], list[Part], Picture]:
    """Sessions that see as much of one instant as is to be had."""
    for tried, kind in enumerate(
        [Picture.ALL] * TRIES + [Picture.CLIENTS] * HELD_TRIES + [Picture.NONE]
    ):
        parts = [*_copies(lord, shared), *_parts(lord, relations)]
        with ExitStack() as attempt:
            try:
                with _waiting(reach, parts, kind):
                    sessions = {
                        node: _look(attempt.enter_context(reach.open(node)), mine)
                        for node, mine in _by_node(parts).items()
                    }
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected, _Moved):
                if kind is Picture.NONE:
                    raise UserError(
                        "a partition cannot be read: somebody holds it, or moves it",
                        "Try again later",
                        code=Code.LOCK_TIMEOUT,
                    ) from None
            except UserError:
                # Commits were not held, or not to the end: a node is away, or no shardlord acts.
                if kind is not Picture.CLIENTS:
                    raise
            else:
                stack.push(attempt.pop_all())
                return sessions, parts, kind
        time.sleep(PAUSE_S * min(tried + 1, TRIES))
    raise AssertionError


@contextmanager
def _waiting(reach: Reach, parts: Sequence[Part], kind: Picture) -> Iterator[None]:
    """Keeps back who would make the nodes' snapshots differ.

    Raises:
        UserError: commits cannot be held, or were not until the end.
        psycopg.Error: a lock cannot be had.
    """
    with ExitStack() as stack:
        if kind is Picture.CLIENTS:
            stack.enter_context(hold_commits(reach.dsn))
        elif kind is Picture.ALL:
            for node, mine in _by_node(parts).items():
                _lock(stack.enter_context(reach.open(node)), mine, "share")
        yield


class _Moved(Exception):
    """A partition is not where it was."""


def _parts(lord: SyncConnection, relations: list[str]) -> list[Part]:
    rows = lord.execute(queries("dump")["primaries"], (relations,)).fetchall()
    number = {relation: n for n, relation in enumerate(relations)}
    return [
        Part(
            r["part_name"],
            r["relation"],
            r["owner"],
            r["k"],
            f"data/{number[r['relation']]}_{r['k']}.sql",
        )
        for r in rows
    ]


def _copies(lord: SyncConnection, shared: list[str]) -> list[Part]:
    return [
        Part(r["relation"], r["relation"], r["node"], 0, f"data/s{n}.sql", shared=True)
        for n, r in enumerate(_shared(lord, shared))
    ]


def _by_node(parts: Sequence[Part]) -> Mapping[int, list[Part]]:
    found: defaultdict[int, list[Part]] = defaultdict(list)
    for part in parts:
        found[part.node].append(part)
    return dict(sorted(found.items()))


def _data(conn: SyncConnection, part: Part) -> dict[str, LiteralString]:
    query = queries("dump")["shared_data" if part.shared else "data"]
    row: dict[str, LiteralString] | None = conn.execute(query, (part.name,)).fetchone()
    if row is None:
        raise _Moved
    return row


def _lock(conn: SyncConnection, parts: Sequence[Part], mode: str) -> None:
    """Locks the data tables of one node until the session ends."""
    tables = ", ".join("only " + _data(conn, part)["name"] for part in parts)
    if conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
        conn.execute("begin")
    conn.execute(f"set local lock_timeout = {LOCK_MS}".encode())
    conn.execute(f"lock table {tables} in {mode} mode".encode())
    for part in parts:
        _data(conn, part)


def _look(conn: SyncConnection, parts: Sequence[Part]) -> SyncConnection:
    """A session that keeps the data tables where they are, and sees them as they are now."""
    tables = [_data(conn, part)["name"] for part in parts]
    conn.execute("begin isolation level repeatable read read only")
    conn.execute(f"set local lock_timeout = {LOCK_MS}".encode())
    for table in tables:
        conn.execute(f"lock table only {table} in access share mode".encode())
    conn.execute("set local client_encoding = 'UTF8'")
    for part in parts:
        _data(conn, part)
    return conn


def _copy_all(
    sessions: Mapping[int, SyncConnection],
    parts: Sequence[Part],
    directory: Path,
    say: Callable[[str], None],
) -> dict[str, int]:
    """Each node by a thread of its own; how many rows each partition has."""
    rows: dict[str, int] = {}

    def node(mine: Sequence[Part]) -> None:
        for part in mine:
            rows[part.name] = _copy(sessions[part.node], part, directory / part.file)
            say(f"{part.name}: {rows[part.name]} rows ({len(rows)} of {len(parts)})")

    with ThreadPoolExecutor(max(len(sessions), 1)) as pool:
        for done in [pool.submit(node, mine) for mine in _by_node(parts).values()]:
            done.result()
    return rows


def _tops(
    sessions: Mapping[int, SyncConnection],
    parts: Sequence[Part],
    sequences: Sequence[Mapping[str, str]],
) -> dict[str, int]:
    """The greatest number of each sequence that is in a row."""
    found: dict[str, int] = {}
    for seq in sequences:
        for part in parts:
            conn = sessions[part.node]
            table, column = sql.SQL(_data(conn, part)["name"]), sql.Identifier(seq["column"])
            query = sql.SQL("select max({})::numeric::bigint as top from {}").format(column, table)
            row = conn.execute(query).fetchone()
            if row is not None and row["top"] is not None:
                found[seq["name"]] = max(row["top"], found.get(seq["name"], 1))
    return found


def _copy(conn: SyncConnection, part: Part, path: Path) -> int:
    data = _data(conn, part)
    columns = data["columns"]
    name = conn.execute("select shardman.sql_name(%s) as name", (part.relation,)).fetchone()
    assert name is not None
    with path.open("wb") as out, conn.cursor() as cur:
        out.write(f"copy {name['name']} ({columns}) from stdin;\n".encode())
        # As the server wrote them.
        statement = sql.SQL("copy {} ({}) to stdout").format(
            sql.SQL(data["name"]), sql.SQL(columns)
        )
        with cur.copy(statement) as block:
            for piece in block:
                out.write(piece)
        out.write(b"\\.\n")
        return cur.rowcount


def _write(
    directory: Path,
    shared: Sequence[Mapping[str, Any]],
    tables: Sequence[Mapping[str, Any]],
    parts: Sequence[Part],
    rows: Mapping[str, int],
    picture: Picture,
) -> None:
    """The scripts, and last what tells that the dump is whole."""
    every = (*shared, *tables)
    (directory / "tables.sql").write_text("".join(t["create_sql"] for t in every))
    # Whoever is referred to has his keys first; triggers do not act on rows that are loaded.
    behind = [
        *(t["index_sql"] for t in shared),
        *(f"{item['sql']};\n" for t in shared for item in t["foreign_keys"]),
        *(t["index_sql"] for t in tables),
        *(t["inside_sql"] for t in tables),
        *(f"{item};\n" for t in every for item in t["triggers"]),
    ]
    (directory / "indexes.sql").write_text("".join(behind))
    (directory / "rights.sql").write_text("".join(t["rights_sql"] for t in every))
    files = "".join(f"\\ir {part.file}\n" for part in parts)
    load = f"{HEAD}begin;\n\\ir tables.sql\n{files}\\ir indexes.sql\ncommit;\n"
    (directory / "load.sql").write_text(load)
    manifest = {
        "format": 1,
        "made_at": datetime.now(UTC).isoformat(),
        "one_picture": picture is Picture.ALL,
        "whole": picture.value,
        "shared": [
            {
                **{key: t[key] for key in _OF_SHARED},
                "file": p.file,
                "rows": rows[p.name],
            }
            for t in shared
            for p in parts
            if p.shared and p.relation == t["relation"]
        ],
        "tables": [
            {
                "relation": t["relation"],
                "expr": t["expr"],
                "partitions_count": t["partitions_count"],
                "create_sql": t["create_sql"],
                "index_sql": t["index_sql"],
                "refers": t["refers"],
                "colocate_with": t["colocate_with"],
                "inside": t["inside"],
                "triggers": t["triggers"],
                "trigger_path": t["trigger_path"],
                "columns": t["columns"],
                "tops": t["tops"],
                "parts": [
                    {"k": p.k, "file": p.file, "rows": rows[p.name]}
                    for p in parts
                    if p.relation == t["relation"] and not p.shared
                ],
            }
            for t in tables
        ],
    }
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=1))
