"""Publications on one server."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from shardman.pg import strangers
from shardman.pg.connection import Connection


async def ls(conn: Connection, prefix: str) -> list[str]:
    """Names of the publications of this database that begin with prefix."""
    cur = await conn.execute(
        "select pubname from pg_publication where starts_with(pubname, %s) order by 1", (prefix,)
    )
    return [row[0] for row in await cur.fetchall()]


async def ensure(conn: Connection, name: str, tables: Sequence[sql.Identifier]) -> bool:
    """Makes the publication of exactly these tables, whole, with all that happens to them.

    Raises:
        UserError: a stranger has one of this name.
    """
    await strangers.refuse_publication(conn, name)
    listed = sql.SQL(", ").join(sql.SQL("only {}").format(t) for t in tables)
    if name not in await ls(conn, name):
        verb = sql.SQL("create publication {} for table {}")
    elif not await _is_plain(conn, name):
        await drop(conn, name)
        verb = sql.SQL("create publication {} for table {}")
    elif await _tables(conn, name) != {t.as_string(conn) for t in tables}:
        verb = sql.SQL("alter publication {} set table {}")
    else:
        return False
    await conn.execute(verb.format(sql.Identifier(name), listed))
    return True


async def ensure_empty(conn: Connection, name: str) -> None:
    """Makes the publication without tables if there is none of that name. One whose flags are not what they
    must be is made anew: what it has let through is not to be believed.

    Raises:
        UserError: a stranger has one of this name.
    """
    await strangers.refuse_publication(conn, name)
    if name in await ls(conn, name) and not await _is_plain(conn, name):
        await drop(conn, name)
    if name not in await ls(conn, name):
        await conn.execute(sql.SQL("create publication {}").format(sql.Identifier(name)))


async def _is_plain(conn: Connection, name: str) -> bool:
    """Whether it lets through all that happens to its tables, and has only tables that are named."""
    cur = await conn.execute(
        "select p.pubinsert and p.pubupdate and p.pubdelete and p.pubtruncate and not p.puballtables"
        " and not p.pubviaroot"
        " and not exists (select from pg_publication_namespace n where n.pnpubid = p.oid)"
        " from pg_publication p where p.pubname = %s",
        (name,),
    )
    row = await cur.fetchone()
    return row is not None and bool(row[0])


async def add(conn: Connection, name: str, table: sql.Identifier, *, closed: bool = False) -> None:
    """Adds a table to a publication.

    Args:
        closed: with a filter that lets no row through.
    """
    await conn.execute(
        sql.SQL("alter publication {} add table only {}{}").format(
            sql.Identifier(name), table, sql.SQL(" where (false)" if closed else "")
        )
    )


async def remove(conn: Connection, name: str, table: sql.Identifier) -> None:
    """Takes a table out of a publication that has it."""
    await conn.execute(
        sql.SQL("alter publication {} drop table only {}").format(sql.Identifier(name), table)
    )


async def _tables(conn: Connection, name: str) -> set[str]:
    cur = await conn.execute(
        "select schemaname, tablename from pg_publication_tables where pubname = %s", (name,)
    )
    return {sql.Identifier(*row).as_string(conn) for row in await cur.fetchall()}


async def carried(conn: Connection, name: str) -> list[str]:
    """The tables of a channel's publication, as the metadata writes names; its beats left out."""
    cur = await conn.execute("select shardman.published(%s)", (name,))
    row = await cur.fetchone()
    assert row is not None
    return list(row[0])


async def drop(conn: Connection, name: str) -> bool:
    """Drops the publication if there is one."""
    if name not in await ls(conn, name):
        return False
    await conn.execute(sql.SQL("drop publication if exists {}").format(sql.Identifier(name)))
    return True
