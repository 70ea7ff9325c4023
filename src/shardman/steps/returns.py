"""Steps on what a dead node leaves behind: on itself when it is back, and on those that had channels
from and to it."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from shardman import names
from shardman.errors import Temporary, UserError
from shardman.pg import publications, slots, subscriptions
from shardman.steps.base import Connection, Run, step
from shardman.steps.catalog import data_table, is_attached, value
from shardman.steps.channels import in_use, leave, set_standbys, turn_to_end
from shardman.steps.convergence import await_metadata
from shardman.steps.replicas import drop_detached, need_primary, rename_detached
from shardman.steps.rounds import in_rounds

#: How long a node that is back may take to know the metadata of now.
KNOW_S = 5.0


@step("retire_channel")
@dataclass(frozen=True)
class RetireChannel:
    """Ends what a node still takes from one that was replaced: all of it, unless other partitions
    come that way.

    Args:
        of: the node that was replaced.
        parts: partitions whose primaries it had.
    """

    node: int
    of: int
    parts: list[str]

    async def do(self, run: Run) -> None:
        name = names.channel(run.cluster_id, self.of, self.node)
        conn = await run.node(self.node)
        if await _drop_subscriber(run, conn, self.of, self.node):
            return
        # While the old primaries are in use there, the stream would let writes to them be acknowledged.
        source = await run.node(self.of)
        for part in self.parts:
            if await is_attached(source, await data_table(source, part)):
                raise Temporary(f"node {self.of} has not set {part} aside yet")
        await subscriptions.enable(conn, name)
        for part in self.parts:
            await leave(run, part, self.of, self.node)

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
    async with turn_to_end(run, node, to):
        if not await in_use(run, node, to):
            await slots.drop(conn, name)
            await publications.drop(conn, name)


async def _drop_subscriber(run: Run, conn: Connection, of: int, node: int) -> bool:
    """Drops a node's subscription to a channel, unless that is needed; whether it is not."""
    async with turn_to_end(run, of, node):
        if await in_use(run, of, node):
            return False
        await subscriptions.drop(conn, names.channel(run.cluster_id, of, node))
        return True


@step("returned")
@dataclass(frozen=True)
class Returned:
    """On a node that was declared dead and is back: its old primaries are set aside by renaming, for
    they may hold writes that were never acknowledged, and its channels are dropped.

    Args:
        promoted: partitions whose primaries are elsewhere now.
        replicas: partitions whose replicas it is to lose: their primaries have every row of them.
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
        await self._know(run)
        # Writers here wait for subscribers that never come back. They are ended, not cancelled: a
        # cancelled wait would be a commit on this node alone.
        await conn.execute("select shardman.end_waiting_commits()")
        aside = await self._all_aside(run, conn)
        await self._drop_channels(run, conn)
        await set_standbys(run, self.node, besides=run.cmd_id)
        aside += [name for part in self.replicas if (name := await self._give_up(run, conn, part))]
        self._say(run, aside)

    def _say(self, run: Run, aside: list[str]) -> None:
        if aside:
            run.say(f"Set aside on node {self.node}: {', '.join(aside)}.")

    async def _all_aside(self, run: Run, conn: Connection) -> list[str]:
        """Whoever has an open transaction on one of them is ended: what it has read is not true any more,
        and what it has written can never be acknowledged."""
        aside: list[str] = []

        async def rename(conn: Connection, part: str) -> None:
            aside.append(await self._rename(run, conn, part))

        parts = [part for part in self.promoted if await self._in_use(run, conn, part)]
        held = await in_rounds(run, self.node, parts, rename, data_too=True)
        if held:
            self._say(run, aside)
            whom = await value(conn, "select shardman.holders(%s)", held)
            raise Temporary(f"{whom or 'somebody'} holds {', '.join(held)} on node {self.node}")
        return aside

    async def _in_use(self, run: Run, conn: Connection, part: str) -> bool:
        if not await is_attached(conn, await data_table(conn, part)):
            return False
        # Unless it has come back here by a later command.
        lord = await run.node(0)
        return not await value(lord, "select shardman.has_primary(%s, %s)", part, self.node)

    async def _give_up(self, run: Run, conn: Connection, part: str) -> str | None:
        """Drops a replica. When its primary cannot be reached it may be the last copy, and is renamed.

        Returns:
            Its name where it was renamed.
        """
        if await value(await run.node(0), "select shardman.has_copy(%s, %s)", part, self.node):
            return None  # A later command has made one again.
        try:
            await need_primary(run, part)
        except (psycopg.OperationalError, UserError, Temporary):
            return await rename_detached(run, conn, self.node, part)
        await drop_detached(run, conn, self.node, part)
        return None

    async def _know(self, run: Run) -> None:
        """Routes can be made only to where the metadata here says."""
        if not await await_metadata(run, self.node, KNOW_S):
            raise Temporary(f"node {self.node} does not have the metadata of now")

    async def _drop_channels(self, run: Run, conn: Connection) -> None:
        for publisher in self.publishers:
            await _drop_subscriber(run, conn, publisher, self.node)
        for subscriber in self.subscribers:
            await _drop_publisher(run, conn, self.node, subscriber)

    async def _rename(self, run: Run, conn: Connection, part: str) -> str:
        aside = names.set_aside(part, run.cmd_id)
        owner = await value(
            conn,
            "select owner from shardman.partitions where part_name = %s and prv is null",
            part,
        )
        await conn.execute("select shardman.unpublish(shardman.data_table(%s))", (part,))
        await conn.execute(
            "select shardman.make_route(%s, shardman.node_server(%s))", (part, owner)
        )
        await conn.execute("select shardman.fence_out(%s, %s)", (part, aside))
        return aside

    async def undo(self, run: Run) -> None:
        """A finish step goes only forward."""
