"""The schema `shardman` on one database: installed, upgraded, removed.

Migrations (numbered, once each) make types and tables; routines and views are create-or-replace and are
laid anew every time. All in one transaction behind an advisory lock, so two installers at once are safe.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

import psycopg
from psycopg import AsyncConnection, sql

from shardman.errors import UserError

LOCK = "shardman schema"
#: Folders of scripts that are laid anew every time.
_REPEATED = ("routines", "views")


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
        await _lay_anew(conn)
        if not had_extension:
            await conn.execute("select shardman.made('extension postgres_fdw')")
        await conn.execute(
            sql.SQL("comment on schema shardman is {}").format(sql.Literal(_comment()))
        )
    return applied


@cache
def version() -> str:
    """What tells this version of the schema from all others: a hash of its scripts."""
    found = hashlib.sha256()
    for folder in ("migrations", *_REPEATED):
        for name, script in _scripts(folder):
            found.update(name.encode() + b"\0" + script + b"\0")
    return found.hexdigest()[:12]


def _comment() -> str:
    return f"pg_shardman: metadata, commands, and what keeps this node in line; schema {version()}"


async def is_current(conn: AsyncConnection[Any]) -> bool:
    """Whether a database has the schema of this version."""
    cur = await conn.execute("select obj_description('shardman'::regnamespace, 'pg_namespace')")
    return await cur.fetchone() == (_comment(),)


async def _lay_anew(conn: AsyncConnection[Any]) -> None:
    """Routines and views. A view whose columns have changed cannot be replaced: then all are dropped first."""
    try:
        async with conn.transaction():
            await _lay(conn)
    except psycopg.errors.InvalidTableDefinition:
        cur = await conn.execute(
            "select relname from pg_class where relnamespace = 'shardman'::regnamespace and relkind = 'v'"
        )
        for (view,) in await cur.fetchall():
            await conn.execute(
                sql.SQL("drop view if exists {} cascade").format(sql.Identifier("shardman", view))
            )
        await _lay(conn)


async def _lay(conn: AsyncConnection[Any]) -> None:
    for folder in _REPEATED:
        for _, script in _scripts(folder):
            await conn.execute(script)


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
