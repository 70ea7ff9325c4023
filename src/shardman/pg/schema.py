"""The schema `shardman` on one database: installed, upgraded, removed.

Migrations (numbered, once each) make types and tables; routines and views are create-or-replace and are
laid anew every time (`routines`), and those that an older version had are dropped. All in one transaction
behind a lock on the table of migrations, so two installers at once are safe.
"""

from __future__ import annotations

import contextlib
import hashlib
from functools import cache
from importlib.resources import files

import psycopg
from psycopg import sql

from shardman.errors import Code, UserError
from shardman.pg import routines, strangers
from shardman.pg.connection import Connection

#: Two that make the schema at the same instant find out by a unique index; then it is there.
TRIES = 3
#: Folders of scripts that are laid anew every time.
_REPEATED = ("routines", "views")
_MADE_BY_ANOTHER = (
    psycopg.errors.UniqueViolation,
    psycopg.errors.DuplicateObject,
    psycopg.errors.DuplicateSchema,
    psycopg.errors.DuplicateTable,
)


def _scripts(folder: str) -> list[tuple[str, bytes]]:
    """Names and texts of the scripts of one folder, in the order of their names."""
    found = [
        (entry.name, entry.read_bytes())
        for entry in files("shardman.sql").joinpath(folder).iterdir()
        if entry.name.endswith(".sql")
    ]
    return sorted(found)


def _repeated() -> list[bytes]:
    return [script for folder in _REPEATED for _, script in _scripts(folder)]


async def install(conn: Connection) -> int:
    """Installs the schema or brings it up to this version; safe to repeat.

    Args:
        conn: an autocommit connection of a role that may create extensions and schemas.

    Returns:
        How many migrations were applied; 0 when the tables were up to date.

    Raises:
        UserError: somebody else's schema has the name, or somebody's objects depend on what is to change.
    """
    for _ in range(TRIES - 1):
        with contextlib.suppress(*_MADE_BY_ANOTHER):
            return await _install(conn)
    return await _install(conn)


async def _install(conn: Connection) -> int:
    async with conn.transaction():
        await conn.execute("set local client_min_messages = warning")
        # Functions in SQL call each other, and views, in both directions: there is no order in which each finds
        # all that it names. tests/sql/test_routines.py lays all of them again with the check.
        await conn.execute("set local check_function_bodies = off")
        # What our event triggers call is just being made anew, one function after the other.
        await conn.execute("set local shardman.ddl_busy = 'on'")
        await _refuse_strange(conn)
        cur = await conn.execute("select from pg_extension where extname = 'postgres_fdw'")
        had_extension = await cur.fetchone() is not None
        await conn.execute("create extension if not exists postgres_fdw")
        await conn.execute("create schema if not exists shardman")
        await conn.execute(
            "create table if not exists shardman.migrations"
            " (name text primary key, applied_at timestamptz not null default now())"
        )
        await conn.execute("lock table shardman.migrations in share row exclusive mode")
        applied = await _migrate(conn)
        await routines.lay(conn, _repeated())
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


async def is_current(conn: Connection) -> bool:
    """Whether a database has the schema of this version."""
    cur = await conn.execute("select obj_description('shardman'::regnamespace, 'pg_namespace')")
    row = await cur.fetchone()
    return row is not None and is_version(row[0])


def is_version(comment: str | None) -> bool:
    """Whether the comment of a schema says that it is of this version."""
    return comment == _comment()


async def _refuse_strange(conn: Connection) -> None:
    await strangers.refuse_schema(conn)
    cur = await conn.execute(
        "select to_regclass('shardman.local') is null and exists"
        " (select from pg_class where relnamespace = to_regnamespace('shardman') union all"
        "  select from pg_proc where pronamespace = to_regnamespace('shardman') union all"
        "  select from pg_type where typnamespace = to_regnamespace('shardman'))"
    )
    if await cur.fetchone() == (True,):
        raise UserError(
            "the database has a schema shardman that is not ours",
            "Rename it: the name is needed",
            code=Code.SCHEMA_CONFLICT,
        )


async def _migrate(conn: Connection) -> int:
    cur = await conn.execute("select name from shardman.migrations")
    have = {row[0] for row in await cur.fetchall()}
    new = [(name, script) for name, script in _scripts("migrations") if name not in have]
    for name, script in new:
        try:
            await conn.execute(script)
        except psycopg.errors.DependentObjectsStillExist as error:
            raise UserError(
                f"the database cannot be brought up to this version: {error.diag.message_primary}:"
                f" {error.diag.message_detail}",
                "Drop what depends on it first, and make it again afterwards",
                code=Code.SCHEMA_CONFLICT,
            ) from error
        await conn.execute("insert into shardman.migrations (name) values (%s)", (name,))
    return len(new)


async def remove(conn: Connection) -> None:
    """Drops the schema with all that is in it; tables of users are not."""
    await conn.execute("set client_min_messages = warning")
    # A user's extension is not to go with our tables in it, nor what data tables are known by. Each by itself:
    # a former version may lack one, and what the other has done would be undone.
    for prepare in ("take_secrets_back", "keep_marks"):
        await conn.execute(
            f"do $$ begin perform shardman.{prepare}();"
            " exception when undefined_function or invalid_schema_name then null; end $$"
        )
    await conn.execute("drop schema if exists shardman cascade")
