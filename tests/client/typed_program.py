"""A program that says which types it expects. mypy checks it (pyproject.toml), test_psycopg.py runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_type

import psycopg
from psycopg.rows import DictRow, TupleRow, class_row, dict_row

import shardman

QUERY = "select id, v from acc where id = %s"


@dataclass
class Acc:
    """A row of acc."""

    id: int
    v: str


def first(conn: psycopg.Connection[TupleRow]) -> TupleRow | None:
    """Written for psycopg's."""
    return conn.execute(QUERY, (1,)).fetchone()


def run(dsn: str) -> list[Any]:
    """The same row in several ways."""
    with shardman.connect(dsn) as db:
        assert_type(db, shardman.Connection[TupleRow])
        found: list[Any] = [first(db)]
        found.append(assert_type(db.execute(QUERY, (1,)).fetchone(), tuple[Any, ...] | None))
        with db.cursor(row_factory=class_row(Acc)) as cursor:
            found.append(assert_type(cursor.execute(QUERY, (1,)).fetchone(), Acc | None))
        with db.transaction() as block, db.cursor("c", row_factory=dict_row) as server:
            assert_type(block, psycopg.Transaction)
            found.append(assert_type(server.execute(QUERY, (1,)).fetchall(), list[dict[str, Any]]))
        db.commit()
        found.append(
            assert_type(db.run(lambda c: c.execute(QUERY, (1,)).fetchall()), list[tuple[Any, ...]])
        )
    with shardman.connect(dsn, row_factory=dict_row) as of_dicts:
        assert_type(of_dicts, shardman.Connection[DictRow])
        found += [assert_type(row, dict[str, Any]) for row in of_dicts.execute(QUERY, (1,))]
    return found


async def run_async(dsn: str) -> list[Any]:
    """The same for asyncio."""
    connection = await shardman.AsyncConnection.connect(dsn, row_factory=dict_row)
    async with connection as db, db.cursor(row_factory=class_row(Acc)) as cursor:
        shown = await (await db.execute(QUERY, (1,))).fetchone()
        await cursor.execute(QUERY, (1,))
        return [
            assert_type(shown, dict[str, Any] | None),
            assert_type(await cursor.fetchone(), Acc | None),
        ]
