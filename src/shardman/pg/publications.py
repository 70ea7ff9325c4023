"""Publications on one server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import AsyncConnection, sql


async def ls(conn: AsyncConnection[Any], prefix: str) -> list[str]:
    """Names of the publications of this database that begin with prefix."""
    cur = await conn.execute(
        "select pubname from pg_publication where starts_with(pubname, %s) order by 1", (prefix,)
    )
    return [row[0] for row in await cur.fetchall()]


async def ensure(conn: AsyncConnection[Any], name: str, tables: Sequence[sql.Identifier]) -> bool:
    """Makes the publication of exactly these tables, without row filters."""
    listed = sql.SQL(", ").join(sql.SQL("only {}").format(t) for t in tables)
    if name not in await ls(conn, name):
        verb = sql.SQL("create publication {} for table {}")
    elif await _tables(conn, name) != {t.as_string(conn) for t in tables}:
        verb = sql.SQL("alter publication {} set table {}")
    else:
        return False
    await conn.execute(verb.format(sql.Identifier(name), listed))
    return True


async def ensure_empty(conn: AsyncConnection[Any], name: str) -> None:
    """Makes the publication without tables if there is none of that name."""
    if name not in await ls(conn, name):
        await conn.execute(sql.SQL("create publication {}").format(sql.Identifier(name)))


async def add(
    conn: AsyncConnection[Any], name: str, table: sql.Identifier, *, closed: bool = False
) -> None:
    """Adds a table to a publication.

    Args:
        closed: with a filter that lets no row through.
    """
    await conn.execute(
        sql.SQL("alter publication {} add table only {}{}").format(
            sql.Identifier(name), table, sql.SQL(" where (false)" if closed else "")
        )
    )


async def remove(conn: AsyncConnection[Any], name: str, table: sql.Identifier) -> None:
    """Takes a table out of a publication that has it."""
    await conn.execute(
        sql.SQL("alter publication {} drop table only {}").format(sql.Identifier(name), table)
    )


async def _tables(conn: AsyncConnection[Any], name: str) -> set[str]:
    cur = await conn.execute(
        "select schemaname, tablename from pg_publication_tables where pubname = %s", (name,)
    )
    return {sql.Identifier(*row).as_string(conn) for row in await cur.fetchall()}


async def drop(conn: AsyncConnection[Any], name: str) -> bool:
    """Drops the publication if there is one."""
    if name not in await ls(conn, name):
        return False
    await conn.execute(sql.SQL("drop publication if exists {}").format(sql.Identifier(name)))
    return True
