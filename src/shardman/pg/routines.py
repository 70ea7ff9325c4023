"""Our routines and views on one database: laid anew by each version, and those of older versions dropped.

They are create-or-replace. What cannot be replaced, because its arguments, its result or its columns have
changed, is dropped first. What this version does not lay at all is dropped afterwards: an overload that stayed
would make calls ambiguous. Nothing of anybody else's goes with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import psycopg

from shardman.errors import Code, UserError
from shardman.pg.connection import Connection
from shardman.sql.loader import queries

#: What says that a routine or a view is there and cannot be replaced by this one.
_CHANGED = (
    psycopg.errors.InvalidFunctionDefinition,
    psycopg.errors.InvalidTableDefinition,
    psycopg.errors.WrongObjectType,
)
_TOKEN = re.compile(
    r"--[^\n]*|/\*.*?\*/|\b[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|\"[^\"]*\"|(\$\w*\$).*?\1|(;)",
    re.DOTALL,
)
_LAYS = re.compile(
    r"create or replace (?:function|procedure|view)\s+shardman\.(\w+)", re.IGNORECASE
)

#: Catalog (``pg_proc`` or ``pg_class``) and oid.
Thing = tuple[str, int]


async def lay(conn: Connection, scripts: Iterable[bytes]) -> None:
    """Makes routines and views those of the scripts, no more and no less.

    Args:
        conn: in a transaction.
        scripts: of statements that may be executed again and again.

    Raises:
        UserError: somebody's view, or the like, depends on what has to go.
    """
    texts = list(scripts)
    before = await _laid(conn)
    try:
        async with conn.transaction():
            await _execute(conn, texts)
    except _CHANGED:
        for script in texts:
            for statement in statements(script.decode()):
                await _replace(conn, statement)
        # What had to make way for another, and was laid before it, is missing now.
        await _execute(conn, texts)
    after = await _laid(conn)
    if await _drop_unused(conn, [t for t, place in before.items() if after.get(t) == place]):
        # A trigger that used to call what is gone has gone with it, and now calls another function.
        await _execute(conn, texts)


def statements(script: str) -> Iterator[str]:
    """The statements of a script."""
    begin = 0
    for token in _TOKEN.finditer(script):
        if token[2]:
            yield script[begin : token.end()].strip()
            begin = token.end()
    if _TOKEN.sub("", script[begin:]).strip():
        yield script[begin:].strip()


async def _execute(conn: Connection, scripts: Iterable[bytes]) -> None:
    for script in scripts:
        await conn.execute(script)


async def _replace(conn: Connection, statement: str) -> None:
    try:
        async with conn.transaction():
            await conn.execute(statement.encode())
    except _CHANGED:
        named = _LAYS.search(statement)
        if named is None:
            raise
        cur = await conn.execute(queries("schema")["named"], {"name": named[1]})
        await _drop(conn, [(row[0], row[1]) for row in await cur.fetchall()])
        await conn.execute(statement.encode())


async def _laid(conn: Connection) -> dict[Thing, str]:
    cur = await conn.execute(queries("schema")["laid"])
    return {(row[0], row[1]): row[2] for row in await cur.fetchall()}


async def _drop_unused(conn: Connection, things: list[Thing]) -> bool:
    """Drops those that no trigger of a user's table needs: what they guard is still so. They go when a later
    version is installed. Returns whether any was dropped."""
    dropped = False
    for thing in things:
        if not any(is_trigger and not ours for _, is_trigger, ours in await _users(conn, [thing])):
            await _drop(conn, [thing])
            dropped = True
    return dropped


async def _drop(conn: Connection, things: list[Thing]) -> None:
    strange = [what for what, _, ours in await _users(conn, things) if not ours]
    if strange:
        raise UserError(
            f"another version of our schema cannot be installed: {strange[0]} depends on what it changes",
            "Drop that first, and make it again afterwards; shardman's tables can be used in views of"
            " yours, its functions and views may change",
            code=Code.SCHEMA_CONFLICT,
        )
    # All that goes with them is ours, and laid anew if this version has it.
    for (statement,) in await (
        await conn.execute(queries("schema")["drop"], _by_catalog(things))
    ).fetchall():
        await conn.execute(statement.encode())


async def _users(conn: Connection, things: list[Thing]) -> list[tuple[str, bool, bool]]:
    cur = await conn.execute(queries("schema")["users"], _by_catalog(things))
    return [(row[0], row[1], row[2]) for row in await cur.fetchall()]


def _by_catalog(things: Iterable[Thing]) -> dict[str, list[int]]:
    routines = [oid for catalog, oid in things if catalog == "pg_proc"]
    views = [oid for catalog, oid in things if catalog == "pg_class"]
    return {"routines": routines, "views": views}
