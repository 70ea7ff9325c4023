"""The step that hands a new copy over to the channel."""

from __future__ import annotations

from dataclasses import dataclass

from shardman import names
from shardman.pg import publications
from shardman.pg.connection import Connection
from shardman.steps.base import PartBetween, PrepareStep, Run, step
from shardman.steps.catalog import data_table, need_relation
from shardman.steps.confirmation import CopySubscriber, catch_up, drain
from shardman.steps.locks import Deadline, begin_locked, patiently, rolled_back


@step("join_channel")
@dataclass(frozen=True)
class JoinChannel(PartBetween, PrepareStep):
    """Hands a new copy over from the copy channel to the channel, at one position of the WAL.

    Under a SHARE lock (readers go on) nobody writes. Once both are empty the table leaves one
    publication and joins the other in one transaction: no row comes twice, none is left out.
    """

    leaves = "the table in exactly one of the two publications"
    clears = "undone with the registration and the copy channel"

    async def do(self, run: Run) -> None:
        source = await run.node(self.src)
        stream = names.copy_channel(run.cluster_id, run.cmd_id)
        subscriber = CopySubscriber(run, stream, self.src, self.dest)

        async def attempt(deadline: Deadline) -> None:
            await catch_up(run, emitter, stream, subscriber)
            await subscriber.need_progress()
            async with run.cut_over_lock:
                await self._hand_over(run, source, emitter, deadline)

        async with run.extra_session(self.src) as emitter:
            await patiently(run, attempt)

    async def _hand_over(
        self, run: Run, source: Connection, emitter: Connection, deadline: Deadline
    ) -> None:
        stream = names.copy_channel(run.cluster_id, run.cmd_id)
        channel = names.channel(run.cluster_id, self.src, self.dest)
        data = await data_table(source, self.part)
        table = await need_relation(source, data)
        async with rolled_back(source):
            await begin_locked(source, [self.part, data], "share", deadline, self.src)
            await drain(emitter, [stream, channel])
            # All of it is one transaction of the source: a crash before its commit leaves the table in the copy
            # channel, behind it in the channel. `undo` of the registration takes it out of that, and of the
            # copy channel drops that one, whichever it was.
            await publications.remove(source, channel, table)
            await publications.add(source, channel, table)
            await publications.remove(source, stream, table)
            await source.execute("commit")
