"""The fence: the instant in which a partition changes its node.

Order of locks: the destination's slot, the source's slot, the source's data table. Clients take locks
from the parent down and statements that arrive through a route begin at a slot, so this order meets
nobody's the other way round. What waits behind our locks waits at most for one short `lock_timeout`;
a try that does not get them gives way, says for whom it waits, and comes again (guarantee 4).

Under the locks nobody writes to the partition. The WAL is forced out and the destination confirms it:
both copies are identical. Then both nodes rewire in transactions that are *prepared*: their locks outlive
every crash, so nothing can slip in before the metadata has decided (guarantee 3).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from psycopg import sql

from shardman import names
from shardman.errors import UserError
from shardman.pg import publications
from shardman.steps.base import Connection, Run, step
from shardman.steps.catalog import data_table, need_relation, value
from shardman.steps.convergence import end_prepared
from shardman.steps.locks import (
    HELD,
    Busy,
    Deadline,
    begin_locked,
    patiently,
    rolled_back,
)
from shardman.steps.replication import catch_up
from shardman.tasks import all_of

#: All streams must be empty within this, or the fence gives way.
CONFIRM_TIMEOUT_MS = 400


async def drain(emitter: Connection, slots: Iterable[str]) -> None:
    """Waits until the subscribers of these slots have confirmed everything that was written before.

    Raises:
        Busy: they have not in time.
    """
    deadline = Deadline(CONFIRM_TIMEOUT_MS)
    for slot in slots:
        await emitter.execute("select shardman.emit()")
        if not await value(
            emitter,
            "select shardman.await_confirmed(%s, pg_current_wal_insert_lsn(), %s)",
            slot,
            deadline.left_ms(),
        ):
            raise Busy("the destination to confirm the last writes")


@step("verify_copy")
@dataclass(frozen=True)
class VerifyCopy:
    """Compares both copies at one LSN: number of rows and an order-independent hash of all content.

    Writers are held (readers are not) only while the stream empties and both sides take a snapshot;
    the hashing runs under these snapshots while everybody writes again.
    """

    part: str
    src: int
    dest: int

    async def do(self, run: Run) -> None:
        async with run.borrow(self.src) as source, run.borrow(self.dest) as dest:
            here, there = await self._contents(run, source, dest)
        if here != there:
            raise UserError(
                f"the copies of {self.part} differ: {here[0]} rows on node {self.src},"
                f" {there[0]} on node {self.dest}",
                "Nothing was changed; report this with the logs of both servers",
            )
        run.memory["rows"] = here[0]

    async def _contents(
        self, run: Run, source: Connection, dest: Connection
    ) -> list[tuple[int, str]]:
        emitter = await run.node(self.src)
        name = await data_table(emitter, self.part)
        stream = names.move_stream(run.cluster_id, run.cmd_id)

        async def attempt(deadline: Deadline) -> None:
            await catch_up(run, emitter, stream)
            async with (
                run.fence,
                rolled_back(holder),
                rolled_back(source),
                rolled_back(dest),
            ):
                await begin_locked(holder, [name], "share", deadline, self.src)
                await drain(emitter, [stream])
                await all_of(_take_snapshot(source), _take_snapshot(dest))
                await holder.execute("rollback")

        async with run.borrow(self.src) as holder:
            await patiently(run, attempt)
        contents = await all_of(_content(source, name), _content(dest, name))
        for conn in (source, dest):
            await conn.execute("commit")
        return contents

    async def undo(self, run: Run) -> None:
        """Nothing was made."""


async def _take_snapshot(conn: Connection) -> None:
    await conn.execute("begin isolation level repeatable read, read only")
    # One process on each server: a move runs beside the application, which needs the others.
    await conn.execute("set local max_parallel_workers_per_gather = 0")
    await conn.execute("select 1")


async def _content(conn: Connection, name: str) -> tuple[int, str]:
    row = await (
        await conn.execute("select rows, hash from shardman.content_hash(%s)", (name,))
    ).fetchone()
    assert row is not None
    return int(row[0]), str(row[1])


@step("fence_move")
@dataclass(frozen=True)
class FenceMove:
    """Exchanges data table and route on both nodes, in prepared transactions.

    Args:
        old_links: nodes whose replicas hang on the source.
        new_links: nodes whose replicas will hang on the destination. They need no rows: under the
            locks every copy is the same, and the channels are switched with the rest.
        keep: the source keeps its table, as a replica; the destination has been one, so there is no
            stream of the command's own.
    """

    part: str
    src: int
    dest: int
    old_links: list[int] = field(default_factory=list)
    new_links: list[int] = field(default_factory=list)
    keep: bool = False

    async def do(self, run: Run) -> None:
        source, dest = await run.node(self.src), await run.node(self.dest)
        tries = 0

        async def attempt(deadline: Deadline) -> float:
            nonlocal tries
            tries += 1
            for stream in self._streams(run):
                await catch_up(run, emitter, stream)
            async with run.fence:
                begun = time.monotonic()
                try:
                    await self._up(run, source, dest, emitter, deadline)
                except HELD:
                    await end_prepared(run, self.src, "rollback")
                    await end_prepared(run, self.dest, "rollback")
                    raise
            return begun

        async with run.borrow(self.src) as emitter:
            run.memory["fence_begun"] = await patiently(run, attempt)
        run.memory["tries"] = tries

    async def _up(
        self,
        run: Run,
        source: Connection,
        dest: Connection,
        emitter: Connection,
        deadline: Deadline,
    ) -> None:
        data = await data_table(source, self.part)
        async with rolled_back(source), rolled_back(dest):
            await begin_locked(dest, [self.part], "access exclusive", deadline, self.dest)
            await begin_locked(source, [self.part, data], "access exclusive", deadline, self.src)
            whom, _ = await all_of(
                value(dest, "select shardman.old_snapshots()"),
                drain(emitter, self._streams(run)),
            )
            if whom:
                raise Busy(f"{whom} on node {self.dest}, whose snapshot is older than the copy")
            await all_of(self._out(run, source, data), self._in(run, dest, data))
            # Both answers are awaited: undoing must find what either has prepared.
            ends = await asyncio.gather(
                self._prepare(run, source, self.src),
                self._prepare(run, dest, self.dest),
                return_exceptions=True,
            )
            raise_first(ends)

    def _streams(self, run: Run) -> list[str]:
        """What must be empty before the switch."""
        own = [] if self.keep else [names.move_stream(run.cluster_id, run.cmd_id)]
        return [*own, *(names.channel(run.cluster_id, self.src, node) for node in self.old_links)]

    async def _out(self, run: Run, source: Connection, data: str) -> None:
        for node in self.old_links:
            channel = names.channel(run.cluster_id, self.src, node)
            await publications.remove(source, channel, await need_relation(source, data))
        if self.keep:
            await source.execute("select shardman.fence_demote(%s)", (self.part,))
        else:
            aside = names.set_aside(self.part, run.cmd_id)
            await source.execute("select shardman.fence_out(%s, %s)", (self.part, aside))

    async def _in(self, run: Run, dest: Connection, data: str) -> None:
        for node in self.new_links:
            channel = names.channel(run.cluster_id, self.dest, node)
            table = await need_relation(dest, data)
            # It is there already, with a filter that lets nothing through.
            await publications.remove(dest, channel, table)
            await publications.add(dest, channel, table)
        if self.keep:
            await dest.execute("select shardman.make_writable(%s)", (data,))
        await dest.execute("select shardman.fence_in(%s)", (self.part,))

    async def _prepare(self, run: Run, conn: Connection, node: int) -> None:
        gid = names.prepared(run.cluster_id, run.cmd_id, run.attempt, node)
        await conn.execute(sql.SQL("prepare transaction {}").format(sql.Literal(gid)))

    async def undo(self, run: Run) -> None:
        # Each node for itself: one that is down must not keep the other's locks up.
        ends = await asyncio.gather(
            end_prepared(run, self.src, "rollback"),
            end_prepared(run, self.dest, "rollback"),
            return_exceptions=True,
        )
        raise_first(ends)


def raise_first(ends: Sequence[BaseException | None]) -> None:
    """Raises the first failure of a gathering, if there is one."""
    for end in ends:
        if end is not None:
            raise end
