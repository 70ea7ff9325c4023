"""Compares the copies of a partition as they were at one instant, while everybody writes.

The primary's writers are held until its channels have run empty and each node has taken a snapshot, some
milliseconds; what is read afterwards is read under these snapshots. Whoever holds the table longer than a
moment is given way to. Whoever asks may die at any time: all there is are transactions of its sessions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from shardman import names
from shardman.pg.bounded import unhurried
from shardman.pg.connection import Connection
from shardman.tasks import all_of

#: A power of two. So many numbers a copy are sent.
BUCKETS = 1024
#: How long one try waits for the lock, and then for the channels to run empty, in ms.
LOCK_MS = 60
DRAIN_MS = 300
#: How far replicas may be behind before: they get so long to catch up, in ms, while everybody writes.
CATCH_UP_MS = 2000


class Unsettled(Exception):
    """The copies could not be seen at one instant: who or what was in the way."""


class Changed(Exception):
    """A command has moved the primary, or what hangs on it, since the metadata were read."""


@dataclass(frozen=True)
class Content:
    """Number of rows and a hash of them, by bucket."""

    buckets: Mapping[int, tuple[int, str]]

    @property
    def rows(self) -> int:
        """How many there are."""
        return sum(rows for rows, _ in self.buckets.values())

    def differing(self, other: Content) -> int:
        """In how many rows two copies differ at least: 0 when they are equal."""
        pairs = (
            (self.buckets.get(b, (0, "")), other.buckets.get(b, (0, "")))
            for b in self.differing_buckets(other)
        )
        return sum(max(1, abs(here[0] - there[0])) for here, there in pairs)

    def differing_buckets(self, other: Content) -> list[int]:
        """The buckets in which two copies differ."""
        either = self.buckets.keys() | other.buckets.keys()
        return sorted(b for b in either if self.buckets.get(b) != other.buckets.get(b))


def differing_keys(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """The keys of rows that two copies do not have alike.

    Args:
        here, there: hashes of rows, by key.
    """
    return sorted(k for k in here.keys() | there.keys() if here.get(k) != there.get(k))


@dataclass(frozen=True)
class Copies:
    """The sessions for the copies of one partition.

    Args:
        part: which one.
        holder: on the primary's node; holds the lock.
        primary: on the same node; reads.
        replicas: by the channel through which each follows.
        through: sessions on other nodes, which are to read through their routes; replicas' may be among them.
    """

    part: str
    holder: Connection
    primary: Connection
    replicas: Mapping[str, Connection]
    through: Sequence[Connection] = ()

    async def at_one_instant(self) -> None:
        """Opens a transaction on each session but the holder's, in which all see the same rows.

        Raises:
            Unsettled: somebody holds the table, or a replica does not catch up.
            Changed: the metadata are out of date.
        """
        await self._catch_up(CATCH_UP_MS)
        await self.holder.execute("begin")
        try:
            await self._hold_still()
            await self._catch_up(DRAIN_MS)
            readers = {self.primary, *self.replicas.values(), *self.through}
            await all_of(*(self._begin(c) for c in readers))
        finally:
            await rollback(self.holder)

    async def _hold_still(self) -> None:
        try:
            still = await _value(
                self.holder,
                "select shardman.hold_still(%s, %s, %s)",
                self.part,
                [*self.replicas],
                LOCK_MS,
            )
        except psycopg.errors.UndefinedTable as gone:
            raise Changed(self.part) from gone
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            await self.holder.execute("rollback")
            whom = await _value(
                self.holder, "select shardman.holders(array[shardman.data_table(%s)])", self.part
            )
            raise Unsettled(str(whom or "a lock")) from None
        if not still:
            raise Changed(self.part)

    async def _catch_up(self, ms: int) -> None:
        if not self.replicas:
            return
        upto = await _value(self.primary, "select shardman.emit()")
        try:
            late = await _value(
                self.primary, "select shardman.caught_up(%s, %s, %s)", [*self.replicas], upto, ms
            )
        except psycopg.errors.UndefinedObject as gone:
            raise Changed(self.part) from gone
        if late is not None:
            raise Unsettled(f"the subscriber of {late}")

    async def _begin(self, conn: Connection) -> None:
        await begin_reading(conn)
        if conn in self.through:
            # The node at the other end of the route takes its snapshot with the first row that is asked for.
            await conn.execute(sql.SQL("select from {} limit 1").format(self.table))

    @property
    def table(self) -> sql.Identifier:
        """The partition, which leads to the rows on every node."""
        return sql.Identifier(*names.unquote(self.part))

    async def contents(self) -> list[Content]:
        """Of the primary, then of each replica."""
        readers = (self.primary, *self.replicas.values())
        return await all_of(*(content(c, self.part) for c in readers))

    async def rollback(self) -> None:
        """Ends all transactions."""
        everybody = {self.holder, self.primary, *self.replicas.values(), *self.through}
        await all_of(*(rollback(c) for c in everybody))


async def begin_reading(conn: Connection) -> None:
    """Opens a transaction that goes on seeing what there is now."""
    await conn.execute("begin isolation level repeatable read, read only")
    # One process on each server: the application needs the others. Texts of times are hashed.
    await conn.execute("set local max_parallel_workers_per_gather = 0; set local timezone = 'UTC'")
    await conn.execute("select 1")


async def content(conn: Connection, part: str) -> Content:
    """What a copy of a partition consists of."""
    return await content_of(conn, str(await _value(conn, "select shardman.data_table(%s)", part)))


async def content_of(conn: Connection, relation: str) -> Content:
    """What a table consists of."""
    with unhurried(conn):
        cur = await conn.execute(
            "select bucket, rows, hash from shardman.content_buckets(%s, %s)", (relation, BUCKETS)
        )
        return Content({int(b): (int(rows), str(hash_)) for b, rows, hash_ in await cur.fetchall()})


async def _value(conn: Connection, query: str, *params: object) -> object:
    row = await (await conn.execute(query.encode(), params)).fetchone()
    return row[0] if row else None


async def rollback(conn: Connection) -> None:
    """Ends the transaction of a session, if there is one."""
    if not conn.closed and conn.info.transaction_status != TransactionStatus.IDLE:
        with suppress(psycopg.Error):
            await conn.execute("rollback")
