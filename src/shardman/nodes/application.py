"""The tables of a node's database, read for `shardman distribute`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from shardman.errors import Code, UserError
from shardman.model.application import (
    PLAIN,
    Application,
    Column,
    ForeignKey,
    Key,
    Statement,
    Table,
)
from shardman.model.distribution import Distribution, Obstacle
from shardman.pg.connection import SyncConnection
from shardman.sql.loader import queries

Row = Mapping[str, Any]
T = TypeVar("T")

#: How long others may queue behind us for a table, and for how long is tried.
_LOCK_MS, _PATIENCE_S, _PAUSE_S = 400, 60.0, 0.2


def read(session: SyncConnection) -> Application:
    """What is in the database of a session."""
    # Names are written with their schemas, whoever asks.
    session.execute("select set_config('search_path', 'pg_catalog, pg_temp', false)")
    tables = {r["name"]: _table(r) for r in _rows(session, "tables")}
    keys = session.execute(queries("distribute")["foreign_keys"], {"tables": list(tables)})
    return Application(
        tables,
        tuple(_foreign_key(r) for r in keys),
        _rows(session, "workers")[0]["count"],
        _statements(session),
    )


def _rows(session: SyncConnection, name: str) -> list[Row]:
    return list(session.execute(queries("distribute")[name]).fetchall())


def _table(row: Row) -> Table:
    return Table(
        row["name"],
        row["bytes"],
        row["rows"],
        tuple(Column(**c) for c in row["columns"]),
        tuple(Key(**{**k, "columns": tuple(k["columns"])}) for k in row["keys"]),
        row["partitioned"],
        row["state"],
        row["by"],
        row["partitions"],
        row["group"],
    )


def _foreign_key(row: Row) -> ForeignKey:
    lists = ("columns", "target_columns", "writes")
    given: dict[str, Any] = {k: tuple(v) if k in lists else v for k, v in row.items()}
    return ForeignKey(**given)


def _statements(session: SyncConnection) -> tuple[Statement, ...]:
    """Those that were sent to this database, where the server counts them."""
    for row in _rows(session, "has_statements"):
        view = sql.SQL(
            "select query as text, sum(calls)::bigint as calls from {} where dbid ="
            " (select oid from pg_catalog.pg_database where datname = current_database())"
            " and query not ilike '%%shardman.%%' group by query order by 2 desc limit 2000"
        )
        # As the function wrote it: quoted where it has to be.
        place: LiteralString = row["name"]
        found = session.execute(view.format(sql.SQL(place))).fetchall()
        return tuple(Statement(r["text"], r["calls"]) for r in found)
    return ()


def ask(
    session: SyncConnection, application: Application, wanted: Distribution, partitions: int
) -> dict[str, list[Obstacle]]:
    """By table, what its node has against what it is to become.

    Args:
        partitions: of tables for which no number is said.
    """
    found = {}
    for name, table in application.tables.items():
        choice = wanted.of(name)
        if table.state == PLAIN and choice.how != PLAIN and not table.partitioned:
            count = choice.partitions or wanted.of(wanted.root(name)).partitions or partitions
            rows = session.execute(
                queries("distribute")["obstacles"], (name, choice.how, choice.by, count)
            )
            found[name] = [Obstacle(name, r["what"], (r["hint"],), do=r["do"]) for r in rows]
    return found


def own_sequence(session: SyncConnection, statement: LiteralString) -> None:
    """Does what a function wrote down (``Obstacle.do``)."""
    _patiently(session, lambda: session.execute(sql.SQL(statement)))


def objects(session: SyncConnection) -> list[Row]:
    """Views, functions, types, schemas, extensions of a database, with the statements that make them."""
    row = session.execute(queries("distribute")["objects"]).fetchone()
    assert row is not None
    return list(row["objects"])


def make_objects(session: SyncConnection, made: Sequence[Row]) -> list[str]:
    """Makes those that are not there; returns what could not be made, and why."""
    row = session.execute(queries("distribute")["make_objects"], (Jsonb(made),)).fetchone()
    assert row is not None
    return list(row["failed"])


def normal(session: SyncConnection, name: str) -> str:
    """A table's name as the metadata have it."""
    row = session.execute(queries("distribute")["normal"], (name,)).fetchone()
    assert row is not None
    return str(row["name"])


def drop_key(session: SyncConnection, key: ForeignKey) -> None:
    """Notes a foreign key of a plain table down, and drops it, in one transaction."""
    _patiently(
        session, lambda: session.execute(queries("distribute")["drop_key"], (key.table, key.name))
    )


def add_plain_key(session: SyncConnection, key: ForeignKey) -> None:
    """Adds a foreign key that was noted down to a table that has stayed plain."""
    row = session.execute(queries("distribute")["sql_name"], (key.table,)).fetchone()
    assert row is not None
    # Names as functions wrote them, and a text that pg_get_constraintdef wrote.
    parts: tuple[LiteralString, ...] = (row["name"], key.name, key.definition)
    statement = sql.SQL("alter table {} add constraint {} {}").format(*map(sql.SQL, parts))
    _patiently(session, lambda: session.execute(statement))


def has_key(session: SyncConnection, relation: str, name: str) -> bool:
    """On the lord: whether a sharded table has a foreign key."""
    row = session.execute(queries("distribute")["has_key"], (relation, name)).fetchone()
    return row is not None


def forget_key(session: SyncConnection, key: ForeignKey) -> None:
    """A foreign key that was noted down is there again."""
    session.execute(queries("distribute")["forget_key"], (key.table, key.name))


def _patiently(session: SyncConnection, act: Callable[[], object]) -> None:
    """In a transaction, again and again: nobody is to queue behind us for long.

    Raises:
        UserError: somebody has held a table all the time.
    """
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            with session.transaction():
                session.execute("select set_config('lock_timeout', %s, true)", (f"{_LOCK_MS}ms",))
                act()
            return
        except psycopg.errors.LockNotAvailable:
            if time.monotonic() > until:
                raise UserError(
                    "a table is held by others all the time, and its foreign key cannot be changed",
                    "End their transactions, see pg_locks, and run it again",
                    code=Code.LOCK_TIMEOUT,
                ) from None
            time.sleep(_PAUSE_S)
