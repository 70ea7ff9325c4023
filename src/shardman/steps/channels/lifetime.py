"""Steps that open a channel between two nodes, and end it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from shardman import names
from shardman.errors import Code, Temporary
from shardman.pg import beats, decisions, publications, slots, strangers, subscriptions
from shardman.pg.bounded import unhurried
from shardman.pg.connection import Connection
from shardman.steps.base import FinishStep, Made, PrepareStep, Run, Scope, UndoableStep, step
from shardman.steps.catalog import value
from shardman.steps.client_parts import end_copies, knows_decisions
from shardman.steps.confirmation import catch_up, quiet, wait_streaming
from shardman.steps.copy import behind_writers
from shardman.steps.state import ChannelChange, State


@step("channel")
@dataclass(frozen=True)
class Channel(UndoableStep):
    """Makes the channel between two nodes if there is none, and waits until it streams."""

    src: int
    dest: int

    def scope(self) -> Scope:
        return Scope.of([self.src, self.dest])

    def makes(self) -> Made:
        return Made(f"the channel from node {self.src} to node {self.dest}")

    def state(self) -> Sequence[State]:
        return (ChannelChange(self.src, self.dest, "open"),)

    async def do(self, run: Run) -> None:
        async with run.named_lock(f"channel {self.src} {self.dest}"):
            await self._make(run)

    async def _make(self, run: Run) -> None:
        # By the old slot everything that was written there in vain would come.
        old = await value(await run.node(0), "select shardman.not_set_aside(%s)", self.src)
        if old is not None:
            raise Temporary(
                f"node {self.src} has not set {old} aside yet, which was taken over",
                code=Code.NODE_RETURNING,
            )
        name = names.channel(run.cluster_id, self.src, self.dest)
        source, dest = await run.node(self.src), await run.node(self.dest)
        # A crash behind any of these leaves what was made. From the slot on the source keeps WAL; `undo` drops
        # all of it, the next shardlord's if ours has died. Whoever makes the channel again goes on with what
        # is there: nothing has come through yet, for the publication is empty.
        await strangers.refuse_slot(source, name)
        await strangers.refuse_subscription(dest, name)
        await publications.ensure_empty(source, name)
        # Before the slot: where the row arrives there is one already.
        await beats.write(source, self.src)
        await beats.publish(source, name, self.src)
        if knows := await knows_decisions(source) and await knows_decisions(dest):
            await decisions.publish(source, name)
        two_phase = knows and await has_room(source, dest)
        if name not in await slots.ls(source, name):
            async with run.extra_session(self.src) as conn:
                await behind_writers(run, self.src, self._make_slot(conn, name, two_phase))
        await beats.expect(source, dest, self.src)
        peer = await run.peer(self.src)
        if not await subscriptions.create(dest, name, peer, name, two_phase=two_phase):
            # Of a former version, it may not know of beats.
            async with run.extra_session(self.dest) as guard:
                await beats.carry(source, dest, guard, name, self.src)
                if knows:
                    await decisions.carry(source, dest, guard, name)
        await wait_streaming(source, name, self.dest)

    async def _make_slot(self, conn: Connection, name: str, two_phase: bool) -> None:
        with unhurried(conn):
            await conn.execute(
                "select pg_create_logical_replication_slot(%s, 'pgoutput', false, %s)",
                (name, two_phase),
            )

    async def undo(self, run: Run) -> None:
        await end_unused(run, self.src, self.dest)


async def has_room(source: Connection, dest: Connection) -> bool:
    """Whether the destination may prepare as much as `shardman.await_room` lets the source."""
    most = "select current_setting('max_prepared_transactions')::int"
    enough = int(await value(dest, most)) >= int(await value(source, most))
    return enough and bool(await value(dest, "select shardman.has_room()"))


async def in_use(run: Run, src: int, dest: int) -> bool:
    """Whether a replica on dest follows a primary on src.

    Raises:
        Temporary: another command is about to need the channel.
    """
    lord = await run.node(0)
    busy = await value(lord, "select shardman.opens_channel(%s, %s, %s)", src, dest, run.cmd_id)
    if busy is not None:
        raise Temporary(
            f"command {busy} opens the channel from node {src} to node {dest}", code=Code.BUSY
        )
    return bool(await value(lord, "select shardman.channel_needed(%s, %s)", src, dest))


@asynccontextmanager
async def lock_to_end(run: Run, src: int, dest: int) -> AsyncIterator[None]:
    """The turn of whoever wants to drop a channel: it is not waited for while a command opens that.

    Raises:
        Temporary: one does.
    """
    await in_use(run, src, dest)
    async with run.named_lock(f"channel {src} {dest}"):
        yield


async def end_unused(run: Run, src: int, dest: int) -> None:
    """Drops the channel between two nodes unless it carries a table, or is about to.

    The subscriber goes first: without its slot or publication it would fail again and again. A crash behind it
    leaves a slot, for which WAL is kept; this is done again by `undo`, or as a finish step by the janitor.
    """
    name = names.channel(run.cluster_id, src, dest)
    async with lock_to_end(run, src, dest):
        source = await run.node(src)
        if await publications.carried(source, name) or await in_use(run, src, dest):
            return
        await subscriptions.drop(await run.node(dest), name)
        await _drop_source(source, name)


async def _drop_source(source: Connection, name: str) -> None:
    """The slot before the publication: a walsender must not find that gone while it decodes."""
    await slots.drop(source, name)
    await publications.drop(source, name)


async def drop_publisher(run: Run, conn: Connection, src: int, dest: int) -> None:
    """Drops a node's side of a channel from it, unless that is needed; the other side may be dead.

    Args:
        conn: a session on the node src.
    """
    async with lock_to_end(run, src, dest):
        if not await in_use(run, src, dest):
            await _drop_source(conn, names.channel(run.cluster_id, src, dest))


async def drop_subscriber(
    run: Run, conn: Connection, src: int, dest: int, *, decided: bool = False
) -> bool:
    """Drops a node's subscription to a channel, unless that is needed; whether it is not. The other side
    may be dead.

    Args:
        conn: a session on the node dest.
        decided: what it has left prepared is ended as was decided; otherwise it is rolled back.

    Raises:
        Temporary: nobody can tell yet what was.
    """
    async with lock_to_end(run, src, dest):
        if await in_use(run, src, dest):
            return False
        name = names.channel(run.cluster_id, src, dest)
        if decided:
            await subscriptions.disable(conn, name)
            await end_copies(run, dest, src)
        await subscriptions.drop(conn, name)
        return True


@step("await_channel")
@dataclass(frozen=True)
class AwaitChannel(PrepareStep):
    """Waits until a channel's subscriber has everything that was written before."""

    src: int
    dest: int

    def scope(self) -> Scope:
        return Scope.of([self.src, self.dest])

    async def do(self, run: Run) -> None:
        name = names.channel(run.cluster_id, self.src, self.dest)
        source = await run.node(self.src)
        await catch_up(run, source, name)
        await quiet(source, name)


@step("end_channel")
@dataclass(frozen=True)
class EndChannel(FinishStep):
    """Drops a channel that carries no table any more."""

    leaves = "a channel that carries nothing"

    src: int
    dest: int

    def scope(self) -> Scope:
        return Scope.of([self.src, self.dest])

    async def do(self, run: Run) -> None:
        await end_unused(run, self.src, self.dest)
