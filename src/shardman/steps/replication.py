"""Steps on the stream that carries writes from the source of a copy to its destination."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass

from psycopg import sql

from shardman import names
from shardman.errors import Temporary, UserError
from shardman.pg import publications, slots, subscriptions
from shardman.steps.base import Connection, Run, step
from shardman.steps.catalog import data_table, relation, value

#: How long a new subscription may take to start streaming. Servers start apply workers one per
#: wal_retrieve_retry_interval, five seconds by default, over all subscriptions.
STREAMING_TIMEOUT_S = 60.0
#: Behind by less than this, the rest fits into a fence.
SMALL_LAG_BYTES = 64 * 1024


@step("check_move")
@dataclass(frozen=True)
class CheckMove:
    """What would make a move fail later, found before anything is made."""

    part: str
    src: int
    dest: int

    async def do(self, run: Run) -> None:
        await check_cleared(run, self.dest)
        source, dest = await run.node(self.src), await run.node(self.dest)
        name = await data_table(source, self.part)
        if await relation(source, name) is None:
            raise UserError(
                f"{name} is not on node {self.src}, where the metadata says it is",
                'See what "shardman check" says',
            )
        if await relation(dest, name) is not None:
            raise UserError(
                f"node {self.dest} has a table {name} already",
                "Rename it or drop it, if it is not needed",
            )
        if await relation(dest, self.part) is None:
            await dest.execute("select shardman.reconcile()")
        if await relation(dest, self.part) is None:
            raise UserError(
                f"node {self.dest} does not know {self.part} yet",
                "Wait until it has caught up with the metadata, see shardman.drift there",
            )
        orphan = await value(
            source,
            "select string_agg(gid, ', ') from pg_prepared_xacts"
            " where prepared < now() - interval '1 minute'",
        )
        if orphan:
            raise UserError(
                f"node {self.src} has prepared transactions that hold replication up: {orphan}",
                "Commit or roll them back",
            )

    async def undo(self, run: Run) -> None:
        """Nothing was made."""


async def check_cleared(run: Run, node: int) -> None:
    """A node that was replaced takes no copy before it has cleared away what it had: until then its
    commits wait for replicas that come no more.

    Raises:
        Temporary: it has not.
    """
    if await value(await run.node(0), "select exists (select from shardman.returns_of(%s))", node):
        raise Temporary(f"node {node} has not set aside yet what other nodes have taken over")


@step("publication")
@dataclass(frozen=True)
class Publication:
    """Publishes the data table of one partition, for one command."""

    node: int
    part: str

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        name = names.move_stream(run.cluster_id, run.cmd_id)
        table = await relation(conn, await data_table(conn, self.part))
        assert table is not None
        await conn.execute(
            sql.SQL("create publication {} for table only {}").format(sql.Identifier(name), table)
        )

    async def undo(self, run: Run) -> None:
        await publications.drop(
            await run.node(self.node), names.move_stream(run.cluster_id, run.cmd_id)
        )


@step("subscription")
@dataclass(frozen=True)
class Subscription:
    """Subscribes the destination from the snapshot of the copy on, and waits until it is close."""

    part: str
    src: int
    dest: int

    async def do(self, run: Run) -> None:
        name = names.move_stream(run.cluster_id, run.cmd_id)
        source, dest = await run.node(self.src), await run.node(self.dest)
        await subscriptions.create(dest, name, await run.peer(self.src), name)
        await wait_streaming(source, name, self.dest)
        await catch_up(run, source, name)

    async def undo(self, run: Run) -> None:
        await subscriptions.drop(
            await run.node(self.dest), names.move_stream(run.cluster_id, run.cmd_id)
        )


async def wait_streaming(source: Connection, slot: str, dest: int) -> None:
    """Waits until a subscriber streams.

    Raises:
        Temporary: it does not within STREAMING_TIMEOUT_S.
    """
    deadline = time.monotonic() + STREAMING_TIMEOUT_S
    pauses = itertools.chain((0.005, 0.005, 0.01), itertools.repeat(0.02))
    while not await value(
        source,
        "select exists (select from pg_replication_slots s join pg_stat_replication r on r.pid = s.active_pid"
        " where s.slot_name = %s and r.state = 'streaming')",
        slot,
    ):
        if time.monotonic() > deadline:
            raise Temporary(f"the subscription {slot} on node {dest} does not start streaming")
        await source.execute("select shardman.emit()")
        await asyncio.sleep(next(pauses))


async def lag(source: Connection, slot: str) -> int:
    """Bytes of WAL that a slot's subscriber has not confirmed."""
    return int(
        await value(
            source,
            "select pg_current_wal_insert_lsn() - confirmed_flush_lsn"
            " from pg_replication_slots where slot_name = %s",
            slot,
        )
        or 0
    )


async def catch_up(run: Run, source: Connection, slot: str) -> None:
    """Waits until the subscriber is close behind, showing how far it is."""
    while (behind := await lag(source, slot)) > SMALL_LAG_BYTES:
        if behind > 16 * SMALL_LAG_BYTES:
            await run.waits_for(f"the destination to apply {behind >> 20} MB of WAL")
        await source.execute("select shardman.emit()")
        await asyncio.sleep(0.05 if behind > 16 * SMALL_LAG_BYTES else 0.005)
    await run.waits_for(None)


@step("end_subscription")
@dataclass(frozen=True)
class EndSubscription:
    """Drops the command's subscription."""

    node: int

    async def do(self, run: Run) -> None:
        await subscriptions.drop(
            await run.node(self.node), names.move_stream(run.cluster_id, run.cmd_id)
        )

    async def undo(self, run: Run) -> None:
        """A finish step goes only forward."""


@step("end_publication")
@dataclass(frozen=True)
class EndPublication:
    """Drops the command's slot and publication."""

    node: int

    async def do(self, run: Run) -> None:
        name = names.move_stream(run.cluster_id, run.cmd_id)
        conn = await run.node(self.node)
        await slots.drop(conn, name)
        await publications.drop(conn, name)

    async def undo(self, run: Run) -> None:
        """A finish step goes only forward."""
