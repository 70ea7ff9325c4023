"""Steps on the copy channel, which carries writes from the source of a copy to its destination."""

from __future__ import annotations

from dataclasses import dataclass, field

from psycopg import sql

from shardman import names
from shardman.pg import publications, slots, subscriptions
from shardman.steps.base import FinishStep, Made, Run, Scope, Together, UndoableStep, step
from shardman.steps.catalog import data_table, need_relation
from shardman.steps.confirmation import CopySubscriber, catch_up, wait_streaming
from shardman.steps.locks import PUBLISHING, under_locks


@step("publication")
@dataclass(frozen=True)
class Publication(UndoableStep):
    """Publishes the data table of one partition, for one command.

    Args:
        beside: partitions that go together with it.
    """

    node: int
    part: str
    beside: list[str] = field(default_factory=list)

    def scope(self) -> Scope:
        return Scope.of([self.node], [self.part, *self.beside])

    def makes(self) -> Made:
        return Made(f"the publication of {self.part} on node {self.node}")

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        name = names.copy_channel(run.cluster_id, run.cmd_id)
        tables = [await data_table(conn, part) for part in (self.part, *self.beside)]
        only = [sql.SQL("only {}").format(await need_relation(conn, each)) for each in tables]
        create = sql.SQL("create publication {} for table {}").format(
            sql.Identifier(name), sql.SQL(", ").join(only)
        )
        await under_locks(run, conn, self.node, tables, PUBLISHING, lambda: conn.execute(create))

    async def undo(self, run: Run) -> None:
        await publications.drop(
            await run.node(self.node), names.copy_channel(run.cluster_id, run.cmd_id)
        )


@step("subscription")
@dataclass(frozen=True)
class Subscription(Together, UndoableStep):
    """Subscribes the destination from the snapshot of the copy on, and waits until it is close."""

    def makes(self) -> Made:
        return Made(f"the subscription of {self.part} on node {self.dest}")

    async def do(self, run: Run) -> None:
        name = names.copy_channel(run.cluster_id, run.cmd_id)
        source, dest = await run.node(self.src), await run.node(self.dest)
        tables = [await data_table(dest, part) for part in self.parts]
        async with (
            run.extra_session(self.dest) as guard,
            subscriptions.held(guard, name, tables),
        ):
            await subscriptions.create(dest, name, await run.peer(self.src), name)
        subscriber = CopySubscriber(run, name, self.src, self.dest)
        await wait_streaming(source, name, self.dest, subscriber)
        await catch_up(run, source, name, subscriber)

    async def undo(self, run: Run) -> None:
        await subscriptions.drop(
            await run.node(self.dest), names.copy_channel(run.cluster_id, run.cmd_id)
        )


@step("end_subscription")
@dataclass(frozen=True)
class EndSubscription(FinishStep):
    """Drops the command's subscription."""

    leaves = "the subscription of the copy channel"

    node: int

    def scope(self) -> Scope:
        return Scope.of([self.node])

    async def do(self, run: Run) -> None:
        await subscriptions.drop(
            await run.node(self.node), names.copy_channel(run.cluster_id, run.cmd_id)
        )


@step("end_publication")
@dataclass(frozen=True)
class EndPublication(FinishStep):
    """Drops the command's slot and publication."""

    leaves = "slot and publication of the copy channel; WAL is kept for the slot"

    node: int

    def scope(self) -> Scope:
        return Scope.of([self.node])

    async def do(self, run: Run) -> None:
        name = names.copy_channel(run.cluster_id, run.cmd_id)
        conn = await run.node(self.node)
        await slots.drop(conn, name)
        await publications.drop(conn, name)
