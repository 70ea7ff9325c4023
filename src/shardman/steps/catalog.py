"""Small questions to the catalog of one node."""

from __future__ import annotations

from typing import Any

from psycopg import sql

from shardman.errors import Code, UserError
from shardman.pg.connection import Connection


async def value(conn: Connection, query: str, *params: Any) -> Any:
    """The single value of a query; None when it gives no row."""
    row = await (await conn.execute(query.encode(), params or None)).fetchone()
    return row[0] if row else None


async def relation(conn: Connection, name: str) -> sql.Identifier | None:
    """A relation of the node, quoted; None when there is none."""
    parts = await value(
        conn,
        "select array[n.nspname, c.relname] from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where c.oid = shardman.find_relation(%s)",
        name,
    )
    return sql.Identifier(*parts) if parts else None


async def written(conn: Connection, schema: str, name: str) -> str:
    """A relation's name as the metadata writes it."""
    return str(await value(conn, "select shardman.relation_text(%s, %s)", schema, name))


async def need_relation(conn: Connection, name: str) -> sql.Identifier:
    """As `relation`, where there must be one.

    Raises:
        UserError: it is not there.
    """
    found = await relation(conn, name)
    if found is None:
        raise UserError(
            f"{name} is missing on a node",
            'See what "shardman check" says',
            code=Code.OBJECT_MISSING,
        )
    return found


async def need_table(conn: Connection, name: str) -> sql.Identifier:
    """As `need_relation`, of what is read by its name: a view there would run functions of its owner's. It is
    locked against another name until the transaction ends.

    Raises:
        psycopg.errors.WrongObjectType: it is no table.
    """
    await conn.execute("select shardman.table_itself(%s)", (name,))
    return await need_relation(conn, name)


async def is_attached(conn: Connection, name: str) -> bool:
    """Whether a relation is a partition of another one."""
    return bool(
        await value(
            conn, "select relispartition from pg_class where oid = shardman.find_relation(%s)", name
        )
    )


async def data_table(conn: Connection, part: str) -> str:
    """Name of a partition's data table."""
    return str(await value(conn, "select shardman.data_table(%s)", part))
