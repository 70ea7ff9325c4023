"""`shardman restore`: makes the tables of a dump in a cluster, and loads each partition at its owner."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from shardman.errors import Code, UserError
from shardman.nodes.dump import MANIFEST
from shardman.nodes.reach import Reach
from shardman.pg.connection import SyncConnection
from shardman.pg.wording import plain
from shardman.sql.loader import queries

BLOCK = 1 << 18


@dataclass(frozen=True)
class Load:
    """A file of a dump, and the partition that it goes into."""

    part: str
    file: str
    rows: int
    columns: LiteralString


def restore(reach: Reach, directory: Path, say: Callable[[str], None]) -> int:
    """Loads a dump into a cluster that has none of its tables.

    Args:
        say: is told how far it is.

    Returns:
        The number of rows.

    Raises:
        UserError: it is no dump, a table is there already, or something cannot be made or loaded. What was
            loaded before stays.
    """
    manifest = _manifest(directory)
    with reach.open(reach.lord) as lord:
        first = min((n.id for n in reach.members if n.status == "active"), default=None)
        if first is None:
            raise UserError("the cluster has no worker", "Add one", code=Code.NO_SUCH_NODE)
        with reach.open(first) as node:
            _refuse_taken(node, manifest)
            _need_shared(node, manifest)
            rows = _restore_shared(lord, node, first, manifest.get("shared", ()), directory, say)
            known = {table["relation"] for table in manifest["tables"]}
            for table in manifest["tables"]:
                _shard(lord, node, first, table, known)
                say(f"{table['relation']}: {table['partitions_count']} partitions made")
        loads = _loads(lord, manifest)
        rows += _load_all(reach, loads, directory, say)
        for table in manifest["tables"]:
            _refer(lord, table, known)
        with reach.open(first) as node:
            for table in manifest["tables"]:
                _give_triggers(node, table)
    return rows


def _manifest(directory: Path) -> Any:
    try:
        manifest = json.loads((directory / MANIFEST).read_text())
    except (OSError, ValueError):
        manifest = {}
    if manifest.get("format") != 1:
        raise UserError(
            f"{directory} is no dump of shardman, or not a whole one",
            "Name a directory that shardman dump has written",
            code=Code.BAD_ARGUMENT,
        )
    return manifest


def _refuse_taken(node: SyncConnection, manifest: Mapping[str, Any]) -> None:
    for table in (*manifest.get("shared", ()), *manifest["tables"]):
        row = node.execute(
            "select shardman.find_relation(%s) is not null as taken", (table["relation"],)
        ).fetchone()
        if row is not None and row["taken"]:
            raise UserError(
                f"there is a relation {table['relation']} already",
                "Drop it, or rename it, or restore into another cluster",
                code=Code.NAME_TAKEN,
            )


def _need_shared(node: SyncConnection, manifest: Mapping[str, Any]) -> None:
    """What foreign keys refer to may have been left out."""
    known = {table["relation"] for table in manifest.get("shared", ())}
    for table in manifest["tables"]:
        for name in set(table.get("refers", ())) - known:
            row = node.execute(
                "select exists (select from shardman.shared_tables where relation = %s) as shared",
                (name,),
            ).fetchone()
            if row is not None and not row["shared"]:
                raise UserError(
                    f"foreign keys of {table['relation']} refer to {name}, which is not shared here",
                    "Make it, with its rows, and share it with create_shared_table; then restore",
                    code=Code.TABLE_UNSUITABLE,
                )


def _restore_shared(
    lord: SyncConnection,
    node: SyncConnection,
    first: int,
    tables: Sequence[Mapping[str, Any]],
    directory: Path,
    say: Callable[[str], None],
) -> int:
    """Plain tables with their rows, shared by the command that any table is shared by, first those that others
    refer to. How many rows."""
    rows = 0
    done: set[str] = set()
    late: list[tuple[str, str]] = []
    for table in _in_order(tables):
        relation = table["relation"]
        done.add(relation)
        keys = [k["sql"] for k in table["foreign_keys"] if k["to"] in done]
        late += [(relation, k["sql"]) for k in table["foreign_keys"] if k["to"] not in done]
        with node.transaction():
            node.execute("select set_config('search_path', 'pg_catalog', true)")
            node.execute("set local client_encoding = 'UTF8'")
            node.execute(table["create_sql"].encode())
            load = Load(relation, table["file"], table["rows"], table["columns"])
            rows += _load(node, load, directory / load.file)
            for statement in (table["index_sql"], *keys, *table["triggers"]):
                node.execute(statement.encode())
            for name, top in table["tops"].items():
                node.execute("select setval(shardman.find_relation(%s)::regclass, %s)", (name, top))
        query = "select shardman.create_shared_table(%s, %s) as id"
        error = _command(lord, query, relation, first)
        if error is not None:
            raise UserError(
                f"{relation} cannot be shared: {error}",
                f"The table is on node {first}, with its rows: drop it, and try again",
                code=Code.TABLE_UNSUITABLE,
            )
        say(f"{relation}: {table['rows']} rows, shared")
    for relation, statement in late:
        _change_shared(node, relation, statement)
    return rows


def _in_order(tables: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Each behind those that it refers to, but where they go in a circle.

    >>> tables = [("a", ["b"]), ("b", ["b", "c"]), ("c", ["b"]), ("d", [])]
    >>> found = _in_order([
    ...     {"relation": name, "foreign_keys": [{"to": to} for to in refers]}
    ...     for name, refers in tables
    ... ])
    >>> [table["relation"] for table in found]
    ['d', 'b', 'a', 'c']
    """
    left = {table["relation"]: table for table in tables}
    found: list[Mapping[str, Any]] = []

    def waits(name: str) -> int:
        return len({k["to"] for k in left[name]["foreign_keys"] if k["to"] in left} - {name})

    while left:
        referred = [k["to"] for table in left.values() for k in table["foreign_keys"]]
        # In a circle, the one that most others wait for.
        found.append(left.pop(min(left, key=lambda n: (waits(n) > 0, -referred.count(n)))))
    return found


def _change_shared(node: SyncConnection, relation: str, statement: str) -> None:
    """By DDL that is of the whole cluster."""
    row = node.execute(queries("dump")["spreads_ddl"]).fetchone()
    if row is None or not row["spreads"]:
        raise UserError(
            f"{relation} is shared, with its rows, but lacks a foreign key: the cluster's role is no superuser,"
            " so it would be added on one node only",
            f"Let a superuser run on every node: set shardman.ddl = 'here'; {statement}",
            code=Code.TABLE_UNSUITABLE,
        )
    try:
        with node.transaction():
            node.execute("select set_config('search_path', 'pg_catalog', true)")
            node.execute(statement.encode())
    except psycopg.Error as error:
        raise UserError(
            f"{relation} is shared, with its rows, but lacks a foreign key: {plain(error)}",
            f"Run on a node: {statement}",
            code=Code.TABLE_UNSUITABLE,
        ) from None


def _shard(
    lord: SyncConnection,
    node: SyncConnection,
    first: int,
    table: Mapping[str, Any],
    known: Collection[str],
) -> None:
    """An empty plain table, sharded by the command that any table is sharded by.

    Args:
        known: the tables of the dump.
    """
    with node.transaction():
        node.execute("select set_config('search_path', 'pg_catalog', true)")
        node.execute(table["create_sql"].encode())
        node.execute(table["index_sql"].encode())
        for name, top in table["tops"].items():
            node.execute("select setval(shardman.find_relation(%s)::regclass, %s)", (name, top))
    beside = table.get("colocate_with")
    error = _command(
        lord,
        "select shardman.create_hash_partitions(%s, %s, %s, %s, colocate_with => %s) as id",
        first,
        table["relation"],
        table["expr"],
        table["partitions_count"],
        beside if beside in known else None,
    )
    if error is not None:
        raise UserError(
            f"{table['relation']} cannot be sharded: {error}",
            f"The empty table is on node {first}: drop it, and try again",
            code=Code.TABLE_UNSUITABLE,
        )


def _refer(lord: SyncConnection, table: Mapping[str, Any], known: Collection[str]) -> None:
    """Foreign keys to tables that are colocated: rows came in no order."""
    for item in table.get("inside", ()):
        if item["to"] not in known:
            continue
        query = "select shardman.add_foreign_key(%s, %s, %s) as id"
        error = _command(lord, query, table["relation"], item["name"], item["sql"])
        if error is not None:
            raise UserError(
                f"{table['relation']} has all its rows, but not the foreign key {item['name']}: {error}",
                "Give it one with add_foreign_key",
                code=Code.TABLE_UNSUITABLE,
            )


def _give_triggers(node: SyncConnection, table: Mapping[str, Any]) -> None:
    """Behind the rows, which have met them. As DDL of the cluster, with the names that functions go by."""
    for statement in table.get("triggers", ()):
        try:
            with node.transaction():
                node.execute("select set_config('search_path', %s, true)", (table["trigger_path"],))
                node.execute(statement.encode())
        except psycopg.Error as error:
            raise UserError(
                f"{table['relation']} has all its rows, but lacks a trigger: {plain(error)}",
                f"Run on a node: {statement}",
                code=Code.TABLE_UNSUITABLE,
            ) from None


def _command(lord: SyncConnection, query: LiteralString, *params: object) -> str | None:
    """Submits a command and waits for its end; what it failed with."""
    row = lord.execute(query, params).fetchone()
    assert row is not None
    lord.execute("select shardman.cmd_wait(%s)", (row["id"],))
    done = lord.execute(
        "select status::text, error from shardman.cmd_log where id = %s", (row["id"],)
    ).fetchone()
    assert done is not None
    return None if done["status"] in ("success", "done") else done["error"] or done["status"]


def _loads(lord: SyncConnection, manifest: Mapping[str, Any]) -> Mapping[int, list[Load]]:
    """What each node loads."""
    files = {
        (t["relation"], p["k"]): (p["file"], p["rows"], t["columns"])
        for t in manifest["tables"]
        for p in t["parts"]
    }
    relations = [t["relation"] for t in manifest["tables"]]
    found: defaultdict[int, list[Load]] = defaultdict(list)
    for row in lord.execute(queries("dump")["primaries"], (relations,)).fetchall():
        found[row["owner"]].append(Load(row["part_name"], *files[row["relation"], row["k"]]))
    return found


def _load_all(
    reach: Reach, loads: Mapping[int, list[Load]], directory: Path, say: Callable[[str], None]
) -> int:
    total = sum(len(mine) for mine in loads.values())
    done: list[int] = []

    def node(node_id: int) -> None:
        with reach.open(node_id) as conn:
            conn.execute("set client_encoding = 'UTF8'")
            for load in loads[node_id]:
                rows = _load(conn, load, directory / load.file)
                done.append(rows)
                say(f"{load.part}: {rows} rows ({len(done)} of {total})")

    with ThreadPoolExecutor(max(len(loads), 1)) as pool:
        for each in [pool.submit(node, n) for n in loads]:
            each.result()
    return sum(done)


def _load(conn: SyncConnection, load: Load, path: Path) -> int:
    """Sends what stands between the first line, a statement, and the last, its end."""
    name = conn.execute("select shardman.sql_name(%s) as name", (load.part,)).fetchone()
    assert name is not None
    left = path.stat().st_size - len(b"\\.\n")
    with path.open("rb") as data, conn.cursor() as cur:
        left -= len(data.readline())
        # As servers wrote them.
        statement = sql.SQL("copy {} ({}) from stdin").format(
            sql.SQL(name["name"]), sql.SQL(load.columns)
        )
        with cur.copy(statement) as out:
            while left > 0 and (piece := data.read(min(left, BLOCK))):
                out.write(piece)
                left -= len(piece)
        rows = cur.rowcount
    if rows != load.rows:
        raise UserError(
            f"{path} has {rows} rows, and had {load.rows}",
            "The dump was changed or is damaged",
            code=Code.COPIES_DIFFER,
        )
    return rows
