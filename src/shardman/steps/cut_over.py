"""The cut-over: the instant in which a partition changes its node.

Order of locks: the destination's partition, the source's partition, the source's data table. Clients take locks
from the parent down and statements that arrive through a route begin at a partition, so this order meets
nobody's the other way round. What waits behind our locks waits at most for one short `lock_timeout`;
a try that does not get them gives way, says for whom it waits, and comes again (guarantee 4).

Under the locks nobody writes to the partition. The WAL is forced out and the destination confirms it:
both copies are identical. Then both nodes rewire in transactions that are *prepared*: their locks outlive
every crash, so nothing can slip in before the metadata has decided (guarantee 3).

Behind the switch the source is released first. Until the destination is too, what the source forwards waits
there for the partition's lock, so a crash in between delays statements and shows nobody a state of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from shardman import names
from shardman.pg import publications
from shardman.pg.connection import Connection
from shardman.steps.base import Made, Run, Together, UndoableStep, step
from shardman.steps.catalog import data_table, need_relation, value
from shardman.steps.confirmation import CopySubscriber, catch_up, drain
from shardman.steps.locks import HELD, Busy, Deadline, begin_locked, patiently, rolled_back
from shardman.steps.prepared import end_prepared, prepare
from shardman.steps.references import held, referred_to
from shardman.tasks import all_of, each_of


@step("cut_over")
@dataclass(frozen=True)
class CutOver(Together, UndoableStep):
    """Exchanges data table and route on both nodes, in prepared transactions: one on each, also
    where several partitions go together.

    Args:
        old_channels: nodes whose replicas hang on the source.
        new_channels: nodes whose replicas will hang on the destination. They need no rows: under the
            locks every copy is the same, and the channels are switched with the rest.
        keep: the source keeps its table, as a replica; the destination has been one, so there is no
            copy channel.
        replica: the destination has been one, and the source keeps nothing.
    """

    leaves = "what was prepared, with its locks"
    waits = "statements on the partition"
    waits_until = "commit_prepared"
    clears = "the next shardlord rolls it back and begins anew"

    old_channels: list[int] = field(default_factory=list)
    new_channels: list[int] = field(default_factory=list)
    keep: bool = False
    replica: bool = False

    def makes(self) -> Made:
        return Made(f"the prepared cut-over of {self.named()} on nodes {self.src} and {self.dest}")

    async def do(self, run: Run) -> None:
        source, dest = await run.node(self.src), await run.node(self.dest)

        async def attempt(deadline: Deadline) -> None:
            for stream in self._streams(run):
                await catch_up(run, emitter, stream, subscribers.get(stream))
            for subscriber in subscribers.values():
                await subscriber.need_progress()
            async with run.cut_over_lock, held(run, referred, rewired):
                run.figures.cut_over.begin()
                try:
                    await self._up(run, source, dest, emitter, deadline)
                except HELD:
                    # The next try begins with nothing: the partition must not be locked while it pauses.
                    await self.undo(run)
                    raise

        subscribers = {
            stream: CopySubscriber(run, stream, self.src, self.dest) for stream in self._own(run)
        }
        referred = await referred_to(run, self.parts)
        # A primary's data table loses its foreign keys here; an old copy does when it is dropped.
        rewired = [dest, source] if self.keep else [dest]
        async with run.extra_session(self.src) as emitter:
            await patiently(run, attempt)

    async def _up(
        self,
        run: Run,
        source: Connection,
        dest: Connection,
        emitter: Connection,
        deadline: Deadline,
    ) -> None:
        tables = [await data_table(source, part) for part in self.parts]
        async with rolled_back(source), rolled_back(dest):
            await begin_locked(dest, self.parts, "access exclusive", deadline, self.dest)
            # Data tables behind all partitions: a foreign key leads from one to another past these.
            both = [*self.parts, *tables]
            await begin_locked(source, both, "access exclusive", deadline, self.src)
            whom, _ = await all_of(
                value(dest, "select shardman.old_snapshots()"),
                drain(emitter, self._streams(run)),
            )
            if whom:
                raise Busy(f"{whom} on node {self.dest}, whose snapshot is older than the copy")
            await all_of(self._all_out(run, source, tables), self._all_in(run, dest, tables))
            # Up to here a crash, ours or a node's, ends both transactions with their sessions: nothing stands.
            # From here on each server has its own by itself, whoever dies; steps/prepared.py says who ends it.
            # With one prepared and the other lost nothing has happened: the switch comes behind both.
            await prepare(run, self.named(), {self.src: source, self.dest: dest})

    def _own(self, run: Run) -> list[str]:
        """The copy channel, where there is one."""
        return [] if self.keep or self.replica else [names.copy_channel(run.cluster_id, run.cmd_id)]

    def _streams(self, run: Run) -> list[str]:
        """What must be empty before the switch."""
        return [
            *self._own(run),
            *(names.channel(run.cluster_id, self.src, node) for node in self.old_channels),
        ]

    async def _all_out(self, run: Run, source: Connection, tables: list[str]) -> None:
        for part, data in zip(self.parts, tables, strict=True):
            await self._out(run, source, part, data)

    async def _all_in(self, run: Run, dest: Connection, tables: list[str]) -> None:
        for part, data in zip(self.parts, tables, strict=True):
            await self._in(run, dest, part, data)

    async def _out(self, run: Run, source: Connection, part: str, data: str) -> None:
        for node in self.old_channels:
            channel = names.channel(run.cluster_id, self.src, node)
            await publications.remove(source, channel, await need_relation(source, data))
        if self.keep:
            await source.execute("select shardman.cut_over_demote(%s)", (part,))
        else:
            aside = names.set_aside(part, run.cmd_id)
            await source.execute("select shardman.cut_over_out(%s, %s)", (part, aside))

    async def _in(self, run: Run, dest: Connection, part: str, data: str) -> None:
        for node in self.new_channels:
            channel = names.channel(run.cluster_id, self.dest, node)
            table = await need_relation(dest, data)
            # It is there already, with a filter that lets nothing through.
            await publications.remove(dest, channel, table)
            await publications.add(dest, channel, table)
        if self.keep or self.replica:
            await dest.execute("select shardman.make_writable(%s)", (data,))
        await dest.execute("select shardman.cut_over_in(%s)", (part,))

    async def undo(self, run: Run) -> None:
        # Each node for itself: one that is down must not keep the other's locks up.
        await each_of(
            end_prepared(run, self.src, "rollback"), end_prepared(run, self.dest, "rollback")
        )
