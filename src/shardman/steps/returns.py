"""The step on a node that was replaced and is back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from shardman import names
from shardman.errors import Code, Temporary, UserError
from shardman.pg.connection import Connection
from shardman.sql.loader import queries
from shardman.steps.base import FinishStep, Run, Scope, step
from shardman.steps.catalog import data_table, is_attached, value, written
from shardman.steps.channels.lifetime import drop_publisher, drop_subscriber
from shardman.steps.channels.standby_names import set_standby_names
from shardman.steps.client_parts import knows_decisions, roll_back_lost
from shardman.steps.convergence import await_metadata
from shardman.steps.eviction import lock_evicting
from shardman.steps.replicas import drop_detached, need_primary, rename_detached
from shardman.steps.state import NodeReturn, State

#: How long a node that is back may take to know the metadata of now.
KNOW_S = 5.0


@step("returned")
@dataclass(frozen=True)
class Returned(FinishStep):
    """On a node that was declared dead and is back: its old primaries are set aside by renaming, for
    they may hold writes that were never acknowledged, and its channels are dropped.

    Args:
        promoted: partitions whose primaries are elsewhere now.
        replicas: partitions whose replicas it is to lose: their primaries have every row of them.
        publishers: nodes that had channels to it.
        subscribers: nodes that had channels from it.
    """

    leaves = "old primaries in use on that node"
    waits = "commits on that node"

    #: A command on its partitions can have nothing to do with this node (`check_cleared`), and may wait for
    #: transactions whose commits hang there until this is done.
    unclaimed = True

    node: int
    promoted: list[str]
    replicas: list[str]
    publishers: list[int]
    subscribers: list[int]

    def scope(self) -> Scope:
        return Scope.of([self.node], [*self.promoted, *self.replicas])

    def state(self) -> Sequence[State]:
        return (NodeReturn(self.node, self.promoted, self.subscribers),)

    async def do(self, run: Run) -> None:
        # A crash, or a failure, behind any of these leaves the rest to the janitor, which does all of it anew:
        # what is aside or dropped already is passed over, and the result does not name it then. Up to
        # `set_standby_names` commits here wait for nodes that do not come: what a client writes to an old
        # primary in use is never acknowledged. So that must not come before all of these are set aside.
        conn = await run.node(self.node)
        await self._know(run)
        # Writers here wait for subscribers that never come back. They are ended, not cancelled: a
        # cancelled wait would be a commit on this node alone.
        await conn.execute("select shardman.evict_waiting_commits()")
        # What is prepared is nobody's session: it would hold its tables for as long as nobody ends it.
        await roll_back_lost(run, conn, self.node)
        aside = await self._all_aside(run, conn)
        await self._decides_anew(run, conn)
        await self._drop_channels(run, conn)
        await set_standby_names(run, self.node, except_cmd=run.cmd_id)
        aside += [name for part in self.replicas if (name := await self._give_up(run, conn, part))]
        self._say(run, aside)

    def _say(self, run: Run, aside: list[str]) -> None:
        if aside:
            run.say(f"Set aside on node {self.node}: {', '.join(aside)}.")
            run.figures.keep(self.node, aside)

    async def _all_aside(self, run: Run, conn: Connection) -> list[str]:
        """Whoever has an open transaction on one of them is ended: what it has read is not true any more,
        and what it has written can never be acknowledged."""
        aside: list[str] = []

        async def rename(conn: Connection, part: str) -> None:
            aside.append(await self._rename(run, conn, part))

        parts = [part for part in self.promoted if await self._in_use(run, conn, part)]
        held = await lock_evicting(run, self.node, parts, rename, data_too=True)
        if held:
            self._say(run, aside)
            whom = await value(conn, "select shardman.holders(%s)", held)
            raise Temporary(
                f"{whom or 'somebody'} holds {', '.join(held)} on node {self.node}",
                code=Code.LOCK_TIMEOUT,
            )
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

    async def _decides_anew(self, run: Run, conn: Connection) -> None:
        """What it has decided for clients without that anybody has heard of it did not happen: others have
        taken over without. Unless it still has primaries, to which it may have."""
        lord = await run.node(0)
        place = await value(lord, queries("transactions")["place"], self.node)
        if place == "elsewhere" and await knows_decisions(conn):
            await conn.execute("select shardman.decide_anew()")

    async def _know(self, run: Run) -> None:
        """Routes can be made only to where the metadata here says."""
        if not await await_metadata(run, self.node, KNOW_S):
            raise Temporary(
                f"node {self.node} does not have the metadata of now", code=Code.NODE_BEHIND
            )

    async def _drop_channels(self, run: Run, conn: Connection) -> None:
        for publisher in self.publishers:
            await drop_subscriber(run, conn, publisher, self.node)
        for subscriber in self.subscribers:
            await drop_publisher(run, conn, self.node, subscriber)

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
        await conn.execute("select shardman.cut_over_out(%s, %s)", (part, aside))
        return await written(conn, names.unquote(part)[0], aside)
