"""Steps on channels: one publication, slot and subscription for each ordered pair of nodes.

A channel from node i to node j carries the writes to every partition that has its primary on i and a
replica on j. A table is *registered* in it with a filter that lets nothing through, and is switched in
(or out) by changing the publication: that is transactional and exact in the WAL, so it can be done
inside a fence. No subscription is altered while locks are held.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from psycopg import sql

from shardman import names
from shardman.errors import Temporary
from shardman.pg import publications, slots, standbys, subscriptions
from shardman.steps.base import Connection, Run, step
from shardman.steps.catalog import data_table, need_relation, value
from shardman.steps.copy import behind_writers
from shardman.steps.fence import drain
from shardman.steps.locks import Deadline, begin_locked, patiently, rolled_back
from shardman.steps.replication import catch_up, wait_streaming

#: How long a channel may take to confirm that nothing more comes for a table.
QUIET_TIMEOUT_MS = 10_000


async def published(conn: Connection, name: str) -> list[str]:
    """The tables that a channel carries or has registered."""
    return list(await value(conn, "select shardman.published(%s)", name))


async def refresh(conn: Connection, name: str) -> None:
    """Lets a subscription know which tables its publication has."""
    if name in await subscriptions.ls(conn, name):
        await conn.execute(
            sql.SQL("alter subscription {} refresh publication with (copy_data = false)").format(
                sql.Identifier(name)
            )
        )


async def unpublish(conn: Connection, name: str, table: str) -> None:
    """Takes a table out of a channel on the publisher's side."""
    if table in await published(conn, name):
        await publications.remove(conn, name, await need_relation(conn, table))


async def quiet(conn: Connection, slot: str) -> None:
    """Waits until a channel's subscriber has everything that was written before.

    Raises:
        Temporary: it has not in time; what is on its way could still be for a table that was taken out.
    """
    if slot not in await slots.ls(conn, slot):
        return
    await conn.execute("select shardman.emit()")
    if not await value(
        conn,
        "select shardman.await_confirmed(%s, pg_current_wal_insert_lsn(), %s)",
        slot,
        QUIET_TIMEOUT_MS,
    ):
        raise Temporary(f"the subscriber of {slot} does not confirm")


@step("channel")
@dataclass(frozen=True)
class Channel:
    """Makes the channel between two nodes if there is none, and waits until it streams."""

    src: int
    dest: int

    async def do(self, run: Run) -> None:
        async with run.turn(f"channel {self.src} {self.dest}"):
            await self._make(run)

    async def _make(self, run: Run) -> None:
        # By the old slot everything that was written there in vain would come.
        old = await value(await run.node(0), "select shardman.not_set_aside(%s)", self.src)
        if old is not None:
            raise Temporary(f"node {self.src} has not set {old} aside yet, which was taken over")
        name = names.channel(run.cluster_id, self.src, self.dest)
        source, dest = await run.node(self.src), await run.node(self.dest)
        await publications.ensure_empty(source, name)
        if name not in await slots.ls(source, name):
            async with run.borrow(self.src) as conn:
                await behind_writers(run, self.src, self._make_slot(conn, name))
        await subscriptions.create(dest, name, await run.peer(self.src), name)
        await wait_streaming(source, name, self.dest)

    async def _make_slot(self, conn: Connection, name: str) -> None:
        await conn.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", (name,))

    async def undo(self, run: Run) -> None:
        await end_unused(run, self.src, self.dest)


async def in_use(run: Run, src: int, dest: int) -> bool:
    """Whether a replica on dest follows a primary on src.

    Raises:
        Temporary: another command is about to need the channel.
    """
    lord = await run.node(0)
    busy = await value(lord, "select shardman.opens_channel(%s, %s, %s)", src, dest, run.cmd_id)
    if busy is not None:
        raise Temporary(f"command {busy} opens the channel from node {src} to node {dest}")
    return bool(await value(lord, "select shardman.linked(%s, %s)", src, dest))


@asynccontextmanager
async def turn_to_end(run: Run, src: int, dest: int) -> AsyncIterator[None]:
    """The turn of whoever wants to drop a channel: it is not waited for while a command opens that.

    Raises:
        Temporary: one does.
    """
    await in_use(run, src, dest)
    async with run.turn(f"channel {src} {dest}"):
        yield


async def end_unused(run: Run, src: int, dest: int) -> None:
    """Drops the channel between two nodes unless it carries a table, or is about to."""
    name = names.channel(run.cluster_id, src, dest)
    async with turn_to_end(run, src, dest):
        source = await run.node(src)
        if await published(source, name) or await in_use(run, src, dest):
            return
        await subscriptions.drop(await run.node(dest), name)
        await slots.drop(source, name)
        await publications.drop(source, name)


@step("await_channel")
@dataclass(frozen=True)
class AwaitChannel:
    """Waits until a channel's subscriber has everything that was written before."""

    src: int
    dest: int

    async def do(self, run: Run) -> None:
        name = names.channel(run.cluster_id, self.src, self.dest)
        source = await run.node(self.src)
        await catch_up(run, source, name)
        await quiet(source, name)

    async def undo(self, run: Run) -> None:
        """It only waits."""


@step("end_channel")
@dataclass(frozen=True)
class EndChannel:
    """Drops a channel that carries no table any more."""

    src: int
    dest: int

    async def do(self, run: Run) -> None:
        await end_unused(run, self.src, self.dest)

    async def undo(self, run: Run) -> None:
        """A finish step goes only forward."""


@step("standbys")
@dataclass(frozen=True)
class Standbys:
    """Lets commits on a node wait for its synchronous replicas: those of the metadata, and the nodes
    whose replicas are about to become ones."""

    node: int
    also: list[int]

    async def do(self, run: Run) -> None:
        await self._set(run)

    async def undo(self, run: Run) -> None:
        await self._set(run, besides=run.cmd_id)

    async def _set(self, run: Run, besides: int | None = None) -> None:
        removed = "select worker_status = 'removed' from shardman.nodes where id = %s"
        # One that has not been cleaned may have old primaries in use, and is to wait for their replicas.
        if not await value(await run.node(0), removed, self.node):
            await set_standbys(run, self.node, besides, sure=bool(self.also))


async def set_standbys(
    run: Run, node: int, besides: int | None = None, *, sure: bool = False
) -> None:
    """Lets commits on a node wait for the synchronous replicas of the metadata, and for those that
    running commands are about to make.

    Args:
        besides: a command that gives its own up.
        sure: waits until they do, also where nothing is to be changed.
    """
    async with run.turn(f"standbys {node}"):
        wanted = await value(
            await run.node(0), "select shardman.synchronous_channels(%s, %s)", node, besides
        )
        prefix = names.channels_of(run.cluster_id, node)
        await standbys.set_list(await run.node(node), prefix, list(wanted), sure=sure)


@step("register")
@dataclass(frozen=True)
class Register:
    """Makes a channel know the data table of a partition, without letting a row of it through."""

    part: str
    src: int
    dest: int

    async def do(self, run: Run) -> None:
        name = names.channel(run.cluster_id, self.src, self.dest)
        source = await run.node(self.src)
        data = await data_table(source, self.part)
        if data not in await published(source, name):
            await publications.add(source, name, await need_relation(source, data), closed=True)
        await refresh(await run.node(self.dest), name)

    async def undo(self, run: Run) -> None:
        await leave(run, self.part, self.src, self.dest)


async def leave(run: Run, part: str, src: int, dest: int) -> None:
    """Takes a partition out of a channel; afterwards nothing more comes for its table on dest. One that
    belongs there, for a later command has brought it back, stays."""
    name = names.channel(run.cluster_id, src, dest)
    if await value(await run.node(0), "select shardman.follows(%s, %s, %s)", part, src, dest):
        return
    source = await run.node(src)
    await unpublish(source, name, await data_table(source, part))
    await quiet(source, name)
    await refresh(await run.node(dest), name)


@step("leave_channel")
@dataclass(frozen=True)
class LeaveChannel:
    """Ends the stream of one partition between two nodes."""

    part: str
    src: int
    dest: int

    async def do(self, run: Run) -> None:
        await leave(run, self.part, self.src, self.dest)

    async def undo(self, run: Run) -> None:
        """A finish step goes only forward."""


@step("join_channel")
@dataclass(frozen=True)
class JoinChannel:
    """Hands a new copy over from the command's own stream to the channel, at one position of the WAL.

    Under a SHARE lock (readers go on) nobody writes. Once both streams are empty the table leaves one
    publication and joins the other in one transaction: no row comes twice, none is left out.
    """

    part: str
    src: int
    dest: int

    async def do(self, run: Run) -> None:
        source = await run.node(self.src)
        stream = names.move_stream(run.cluster_id, run.cmd_id)

        async def attempt(deadline: Deadline) -> None:
            await catch_up(run, emitter, stream)
            async with run.fence:
                await self._hand_over(run, source, emitter, deadline)

        async with run.borrow(self.src) as emitter:
            await patiently(run, attempt)

    async def _hand_over(
        self, run: Run, source: Connection, emitter: Connection, deadline: Deadline
    ) -> None:
        stream = names.move_stream(run.cluster_id, run.cmd_id)
        channel = names.channel(run.cluster_id, self.src, self.dest)
        data = await data_table(source, self.part)
        table = await need_relation(source, data)
        async with rolled_back(source):
            await begin_locked(source, [self.part, data], "share", deadline, self.src)
            await drain(emitter, [stream, channel])
            await publications.remove(source, channel, table)
            await publications.add(source, channel, table)
            await publications.remove(source, stream, table)
            await source.execute("commit")

    async def undo(self, run: Run) -> None:
        """`Register` takes the table out of the channel."""
