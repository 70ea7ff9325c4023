"""Steps that end the channels from and to a node that was replaced."""

from __future__ import annotations

from dataclasses import dataclass

from shardman import names
from shardman.errors import Code, Temporary
from shardman.pg import subscriptions
from shardman.steps.base import FinishStep, Run, Scope, step
from shardman.steps.catalog import data_table, is_attached
from shardman.steps.channels.lifetime import drop_publisher, drop_subscriber
from shardman.steps.channels.tables import leave


@step("retire_channel")
@dataclass(frozen=True)
class RetireChannel(FinishStep):
    """Ends what a node still takes from one that was replaced: all of it, unless other partitions
    come that way.

    Args:
        of: the node that was replaced.
        parts: partitions whose primaries it had.
    """

    leaves = "a subscription that is disabled"

    node: int
    of: int
    parts: list[str]

    def scope(self) -> Scope:
        return Scope.of([self.node], self.parts)

    async def do(self, run: Run) -> None:
        name = names.channel(run.cluster_id, self.of, self.node)
        conn = await run.node(self.node)
        if await drop_subscriber(run, conn, self.of, self.node, decided=True):
            return
        # While the old primaries are in use there, the channel would let writes to them be acknowledged.
        source = await run.node(self.of)
        for part in self.parts:
            if await is_attached(source, await data_table(source, part)):
                raise Temporary(
                    f"node {self.of} has not set {part} aside yet", code=Code.NODE_RETURNING
                )
        await subscriptions.enable(conn, name)
        for part in self.parts:
            await leave(run, part, self.of, self.node)


@step("drop_publisher")
@dataclass(frozen=True)
class DropPublisher(FinishStep):
    """Drops slot and publication of a channel to a dead node, so that no WAL is kept for it."""

    leaves = "a slot, for which WAL is kept"

    node: int
    to: int

    def scope(self) -> Scope:
        return Scope.of([self.node])

    async def do(self, run: Run) -> None:
        await drop_publisher(run, await run.node(self.node), self.node, self.to)
