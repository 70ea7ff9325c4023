"""The schema `shardman` on one database: installed, upgraded, removed.

Migrations (numbered, once each) make types and tables; routines and views are create-or-replace and are
laid anew every time. All in one transaction behind an advisory lock, so two installers at once are safe.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from psycopg import AsyncConnection

from shardman.errors import UserError

LOCK = "shardman schema"


def _scripts(folder: str) -> list[tuple[str, bytes]]:
    """Names and texts of the scripts of one folder, in the order of their names."""
    found = [
        (entry.name, entry.read_bytes())
        for entry in files("shardman.sql").joinpath(folder).iterdir()
        if entry.name.endswith(".sql")
    ]
    return sorted(found)


async def install(conn: AsyncConnection[Any]) -> int:
    """Installs the schema or brings it up to this version; safe to repeat.

    Args:
        conn: an autocommit connection of a role that may create extensions and schemas.

    Returns:
        How many migrations were applied; 0 when the tables were up to date.

    Raises:
        UserError: somebody else's schema has the name.
    """
    async with conn.transaction():
        await conn.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (LOCK,))
        await conn.execute("set local client_min_messages = warning")
        await conn.execute("set local check_function_bodies = off")
        await _refuse_strange(conn)
        cur = await conn.execute("select from pg_extension where extname = 'postgres_fdw'")
        had_extension = await cur.fetchone() is not None
        await conn.execute("create extension if not exists postgres_fdw")
        await conn.execute("create schema if not exists shardman")
        await conn.execute(
            "create table if not exists shardman.migrations"
            " (name text primary key, applied_at timestamptz not null default now())"
        )
        applied = await _migrate(conn)
        for folder in ("routines", "views"):
            for _, script in _scripts(folder):
                await conn.execute(script)
        if not had_extension:
            await conn.execute("select shardman.made('extension postgres_fdw')")
    return applied


async def _refuse_strange(conn: AsyncConnection[Any]) -> None:
    cur = await conn.execute(
        "select to_regclass('shardman.local') is null and exists"
        " (select from pg_class where relnamespace = to_regnamespace('shardman'))"
    )
    if await cur.fetchone() == (True,):
        raise UserError(
            "the database has a schema shardman that is not ours", "Rename it: the name is needed"
        )


async def _migrate(conn: AsyncConnection[Any]) -> int:
    cur = await conn.execute("select name from shardman.migrations")
    have = {row[0] for row in await cur.fetchall()}
    new = [(name, script) for name, script in _scripts("migrations") if name not in have]
    for name, script in new:
        await conn.execute(script)
        await conn.execute("insert into shardman.migrations (name) values (%s)", (name,))
    return len(new)


async def remove(conn: AsyncConnection[Any]) -> None:
    """Drops the schema with all that is in it; tables of users are not."""
    await conn.execute("set client_min_messages = warning")
    await conn.execute("drop schema if exists shardman cascade")
