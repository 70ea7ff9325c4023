"""Steps of a failover, in the order in which it takes them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import sql

from shardman import names
from shardman.errors import UserError
from shardman.pg import publications, slots, subscriptions
from shardman.steps.base import Connection, Run, step
from shardman.steps.catalog import data_table, is_attached, need_relation, relation, value
from shardman.steps.channels import set_standbys
from shardman.steps.locks import Busy, begin_locked, patience, rolled_back
from shardman.steps.metadata import unlink


async def lock_against(
    conn: Connection,
    other: Connection,
    tables: list[str],
    timeout_ms: int,
    node: int,
    clear: sql.SQL | sql.Composed,
) -> None:
    """As `begin_locked`, while those who hold the locks and wait for a dead node are ended.

    They are ended while we stand in the queue: whoever comes again then stands behind us.

    Args:
        other: a second session on the node.
        clear: the statement that ends them.

    Raises:
        Busy: the locks could not be had.
    """

    async def clearing() -> None:
        while True:
            await asyncio.sleep(0.03)
            await other.execute(clear)

    task = asyncio.create_task(clearing())
    try:
        await begin_locked(conn, tables, "access exclusive", timeout_ms, node)
    finally:
        task.cancel()
        await asyncio.wait({task})


@step("cut_channel")
@dataclass(frozen=True)
class CutChannel:
    """Ends the stream from a node, whether that node runs or not, without dropping anything.

    From here on the node cannot acknowledge a write to a partition with a replica here: its commits
    wait for a subscriber that does not come.
    """

    node: int
    of: int

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        name = names.channel(run.cluster_id, self.of, self.node)
        await subscriptions.disable(conn, name)

    async def undo(self, run: Run) -> None:
        conn = await run.node(self.node)
        name = names.channel(run.cluster_id, self.of, self.node)
        if name in await subscriptions.ls(conn, name):
            await conn.execute(sql.SQL("alter subscription {} enable").format(sql.Identifier(name)))


@step("succeed")
@dataclass(frozen=True)
class Succeed:
    """The lists of copies without the dead node."""

    dead: int
    promoted: Mapping[str, int]
    dropped: list[list[str | int]]

    async def do(self, run: Run) -> None:
        conn = await run.node(0)
        for part, node in self.dropped:
            await unlink(conn, str(part), int(node))
        for part, node in self.promoted.items():
            await conn.execute(
                "delete from shardman.partitions where part_name = %s and owner = %s",
                (part, self.dead),
            )
            cur = await conn.execute(
                "update shardman.partitions set prv = null where part_name = %s and owner = %s",
                (part, node),
            )
            if cur.rowcount != 1:
                raise UserError(
                    f"{part} has no replica on node {node} any more",
                    "Look at shardman.partitions and try again",
                )

    async def undo(self, run: Run) -> None:
        """The switch is the point of no return."""


@step("promote")
@dataclass(frozen=True)
class Promote:
    """Puts a replica into the slot of its partition, where the route to the dead node was."""

    node: int
    part: str

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        data = await data_table(conn, self.part)
        if await is_attached(conn, data):
            return
        await need_relation(conn, data)
        other = await run.extra(self.node)
        clear = sql.SQL("select shardman.end_stranded(array[{}])").format(sql.Literal(self.part))
        for timeout_ms, pause in patience():
            try:
                async with rolled_back(conn):
                    await lock_against(conn, other, [self.part], timeout_ms, self.node, clear)
                    await conn.execute("select shardman.make_writable(%s)", (data,))
                    await conn.execute("select shardman.fence_in(%s)", (self.part,))
                    await conn.execute("commit")
                return
            except Busy:
                await asyncio.sleep(min(pause, 0.2))

    async def undo(self, run: Run) -> None:
        """A finish step goes only forward."""


@step("drop_cut_channel")
@dataclass(frozen=True)
class DropCutChannel:
    """Drops the subscription to a dead node; its slot there goes when the node is back."""

    node: int
    of: int

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        await subscriptions.drop(conn, names.channel(run.cluster_id, self.of, self.node))

    async def undo(self, run: Run) -> None:
        """A finish step goes only forward."""


@step("drop_publisher")
@dataclass(frozen=True)
class DropPublisher:
    """Drops slot and publication of a channel to a dead node, so that no WAL is kept for it."""

    node: int
    to: int

    async def do(self, run: Run) -> None:
        await _drop_publisher(run, await run.node(self.node), self.node, self.to)

    async def undo(self, run: Run) -> None:
        """A finish step goes only forward."""


async def _drop_publisher(run: Run, conn: Connection, node: int, to: int) -> None:
    name = names.channel(run.cluster_id, node, to)
    await slots.drop(conn, name)
    await publications.drop(conn, name)


@step("returned")
@dataclass(frozen=True)
class Returned:
    """On a node that was declared dead and is back: its old primaries are set aside by renaming, for
    they may hold writes that were never acknowledged; its replicas, whose primaries have every row of
    them, are dropped; so are its channels.

    Args:
        promoted: partitions whose primaries are elsewhere now.
        replicas: partitions whose replicas it held.
        publishers: nodes that had channels to it.
        subscribers: nodes that had channels from it.
    """

    node: int
    promoted: list[str]
    replicas: list[str]
    publishers: list[int]
    subscribers: list[int]

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        await self._know(run, conn)
        # Writers here wait for subscribers that never come back. They are ended, not cancelled: a
        # cancelled wait would be a commit on this node alone.
        await conn.execute("select shardman.end_waiting_commits()")
        aside = [name for part in self.promoted if (name := await self._aside(run, conn, part))]
        for publisher in self.publishers:
            name = names.channel(run.cluster_id, publisher, self.node)
            await subscriptions.drop(conn, name)
        for part in self.replicas:
            await self._drop_replica(conn, part)
        for subscriber in self.subscribers:
            await _drop_publisher(run, conn, self.node, subscriber)
        await set_standbys(run, self.node, [])
        if aside:
            run.say(f"Set aside on node {self.node}: {', '.join(aside)}.")

    async def _know(self, run: Run, conn: Connection) -> None:
        """Routes can be made only to where the metadata here says."""
        target = await value(await run.node(0), "select shardman.emit()")
        for _ in range(500):
            if await value(
                await run.node(0),
                "select confirmed_flush_lsn >= %s::pg_lsn from pg_replication_slots"
                " where slot_name = %s",
                target,
                names.meta_slot(run.cluster_id, self.node),
            ):
                return
            await asyncio.sleep(0.01)

    async def _aside(self, run: Run, conn: Connection, part: str) -> str | None:
        data = await data_table(conn, part)
        if not await is_attached(conn, data):
            return None
        aside = names.set_aside(part, run.cmd_id)
        owner = await value(
            conn,
            "select owner from shardman.partitions where part_name = %s and prv is null",
            part,
        )
        for timeout_ms, pause in patience():
            try:
                async with rolled_back(conn):
                    await begin_locked(
                        conn, [part, data], "access exclusive", timeout_ms, self.node
                    )
                    await conn.execute(
                        "select shardman.make_route(%s, shardman.node_server(%s))", (part, owner)
                    )
                    await conn.execute("select shardman.fence_out(%s, %s)", (part, aside))
                    await conn.execute("commit")
                break
            except Busy as busy:
                await run.waits_for(str(busy))
                await asyncio.sleep(min(pause, 0.2))
        await run.waits_for(None)
        return aside

    async def _drop_replica(self, conn: Connection, part: str) -> None:
        data = await data_table(conn, part)
        table = await relation(conn, data)
        if (
            table is not None
            and not await is_attached(conn, data)
            and await value(conn, "select shardman.is_data_table(%s)", data)
        ):
            await conn.execute(sql.SQL("drop table {}").format(table))

    async def undo(self, run: Run) -> None:
        """A finish step goes only forward."""
