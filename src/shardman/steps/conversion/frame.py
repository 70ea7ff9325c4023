"""A snapshot under which several sessions read the plain table, block by block."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from shardman.pg.connection import Connection
from shardman.steps.catalog import value
from shardman.steps.locks import rolled_back

#: Blocks of 8 kB in one transaction of the copy: one that the application's DDL may have to wait for.
CHUNK_BLOCKS = 2048
#: A table that is truncated or rewritten under our hands is copied anew this often.
MAX_COPIES = 5


class Rewritten(Exception):
    """The table was truncated or rewritten: its blocks mean something else now."""


@dataclass(frozen=True)
class Frame:
    """A snapshot that several sessions share, and the blocks that the table had then."""

    snapshot: str
    filenode: int
    blocks: int

    @property
    def chunks(self) -> list[int]:
        """First block of each chunk."""
        return list(range(0, self.blocks, CHUNK_BLOCKS))


@asynccontextmanager
async def frame(conn: Connection, table: str) -> AsyncIterator[Frame]:
    """Exports a snapshot of the node for as long as the block runs.

    The snapshot is kept without a lock on the table, so the application's DDL waits for one chunk at
    most. The file node tells whether blocks still mean what they meant.

    Raises:
        UndefinedTable: it is not there any more.
    """
    filenode = await value(
        conn, "select pg_relation_filenode(shardman.find_relation(%s)::regclass)", table
    )
    async with rolled_back(conn):
        await conn.execute("begin isolation level repeatable read")
        snapshot = await value(conn, "select pg_export_snapshot()")
        blocks = await value(
            conn,
            "select pg_relation_size(shardman.find_relation(%s)::regclass)"
            " / current_setting('block_size')::int",
            table,
        )
        if filenode is None or blocks is None:
            raise psycopg.errors.UndefinedTable(f"there is no table {table} any more")
        yield Frame(snapshot, filenode, blocks)
        await conn.execute("commit")


@asynccontextmanager
async def look_through(conn: Connection, shared: Frame, table: str) -> AsyncIterator[None]:
    """A transaction of its own with the frame's snapshot, for as long as the block runs.

    Raises:
        Rewritten: the table was truncated or rewritten since.
    """
    async with rolled_back(conn):
        await conn.execute("begin isolation level repeatable read")
        await conn.execute(
            sql.SQL("set transaction snapshot {}").format(sql.Literal(shared.snapshot))
        )
        try:
            await conn.execute("select shardman.check_filenode(%s, %s)", (table, shared.filenode))
        except psycopg.Error as error:
            if error.sqlstate == "SHM03":
                raise Rewritten from error
            raise
        yield
        await conn.execute("commit")
