"""Compares the copies of a shared table, and makes single rows of one like those of another.

While everybody writes, copies differ by what is just being committed. So where they seem to differ all
writers are held for a moment, in their own line (`sql/routines/98_shared_writes.sql`): with the lock of
the table's first node, and then of each, nobody has anything on its way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from shardman.pg.comparison import (
    BUCKETS,
    Changed,
    Content,
    Unsettled,
    begin_reading,
    content_of,
    differing_keys,
    rollback,
)
from shardman.pg.connection import Connection
from shardman.pg.copy_pipe import Pump
from shardman.steps.catalog import need_relation, need_table, value
from shardman.steps.copy import begin_writing, carried, copy_shape
from shardman.tasks import all_of

#: How long each lock of the writers is waited for, in ms.
LOCK_MS = 400
#: How long rows may be exchanged, in ms: writers wait.
MEND_MS = 10_000


@dataclass(frozen=True)
class SharedCopies:
    """The sessions for the copies of one shared table, by node.

    Args:
        holders: hold the locks, and write.
        readers: read.
    """

    relation: str
    holders: Mapping[int, Connection]
    readers: Mapping[int, Connection]

    async def begin(self) -> None:
        """Opens a transaction for each reader, which sees what its node has now: what is just being
        committed on some and not on others."""
        await all_of(*(begin_reading(c) for c in self.readers.values()))

    async def begin_at_one_instant(self) -> None:
        """Opens them where nothing is on its way.

        Raises:
            Unsettled: a writer keeps his lock.
            Changed: the metadata are out of date.
        """
        async with self.held():
            await self.begin()

    async def end(self) -> None:
        """Ends the readers' transactions."""
        await all_of(*(rollback(c) for c in self.readers.values()))

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Within the block nobody writes, and each holder has a transaction, which is rolled back at the end.

        Raises:
            Unsettled: a writer keeps his lock.
            Changed: the metadata are out of date.
        """
        try:
            for number, node in enumerate(sorted(self.holders)):
                await self._hold(node, ("turn", "work") if number == 0 else ("work",))
            yield
        finally:
            for conn in self.holders.values():
                await rollback(conn)

    async def _hold(self, node: int, kinds: tuple[str, ...]) -> None:
        conn = self.holders[node]
        await conn.execute("begin isolation level read committed")
        await conn.execute(f"set local lock_timeout = {LOCK_MS}".encode())
        try:
            for kind in kinds:
                await conn.execute(
                    "select shardman.take_shared_lock(%s, %s)", (self.relation, kind)
                )
        except psycopg.errors.LockNotAvailable:
            raise Unsettled(f"a writer to {self.relation}, whose lock is on node {node}") from None
        except psycopg.errors.SerializationFailure:
            raise Changed(self.relation) from None
        nodes = await value(conn, "select nodes from shardman.shared_nodes(%s)", self.relation)
        if nodes != sorted(self.holders):
            raise Changed(self.relation)

    async def shapes(self) -> dict[int, str]:
        """What each copy looks like, as a hash."""
        query = "select shardman.shared_shape(%s)"
        return {n: str(await value(c, query, self.relation)) for n, c in self.readers.items()}

    async def contents(self) -> dict[int, Content]:
        """What the readers see of each copy."""
        found = await all_of(*(content_of(c, self.relation) for c in self.readers.values()))
        return dict(zip(self.readers, found, strict=True))

    async def keys(self, here: int, there: int, buckets: list[int], most: int) -> list[str]:
        """The keys of rows that two nodes do not have alike, as the readers see them; more than `most` where
        there are more."""
        found = [
            await _hashes(self.readers[node], self.relation, buckets, 8 * most + 1)
            for node in (here, there)
        ]
        if any(len(hashes) > 8 * most for hashes in found):
            return ["?"] * (most + 1)
        return differing_keys(*found)

    async def mend(self, right: int, wrong: int, keys: list[str]) -> None:
        """Makes rows of one copy those of another, while writers wait. What they were is kept on that node.

        Raises:
            Unsettled, Changed: as `held` does.
            psycopg.Error: it cannot be; SHM13: rows refer to what would go.
        """
        source, into = self.holders[right], self.holders[wrong]
        async with self.held():
            await into.execute(f"set local statement_timeout = {MEND_MS}".encode())
            await begin_writing(into, self.relation)
            await into.execute("select shardman.take_shared_rows(%s, %s)", (self.relation, keys))
            await self._carry(source, into, keys)
            await into.execute(
                "select shardman.need_nothing_dangling(%s, %s)", (self.relation, keys)
            )
            await into.execute("commit")

    async def _carry(self, source: Connection, into: Connection, keys: list[str]) -> None:
        columns, form = await copy_shape(source, self.relation)
        key = await value(source, "select shardman.shared_row_key(%s, 't')", self.relation)
        # Read in the lock: the rows may have been written to since they were compared.
        read = sql.SQL(
            "copy (select {} from only {} as t where {} = any ({}::text[])) to stdout (format {})"
        ).format(columns, await need_table(source, self.relation), sql.SQL(key), keys, form)
        write = sql.SQL("copy {} ({}) from stdin (format {})").format(
            await need_relation(into, self.relation), columns, form
        )
        pump = Pump(source.pgconn, into.pgconn)
        await carried(pump, read.as_bytes(source), write.as_bytes(into))


async def _hashes(conn: Connection, relation: str, buckets: list[int], most: int) -> dict[str, str]:
    query = "select key, hash from shardman.shared_rows(%s, %s, %s, %s)"
    cur = await conn.execute(query, (relation, BUCKETS, buckets, most))
    return {str(key): str(hash_) for key, hash_ in await cur.fetchall()}
