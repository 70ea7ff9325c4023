"""Steps that change which tables a channel carries."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from shardman import names
from shardman.errors import RemovedNodeAway
from shardman.pg import publications, subscriptions
from shardman.pg.connection import Connection
from shardman.steps.base import FinishStep, Made, PartBetween, Run, Scope, UndoableStep, step
from shardman.steps.catalog import data_table, need_relation, value
from shardman.steps.confirmation import catch_up, quiet
from shardman.steps.locks import PUBLISHING, under_locks
from shardman.steps.takes import refuse_stricter


async def refresh(run: Run, name: str, source: Connection, dest: int) -> None:
    """Lets the subscriber of a channel know which tables it carries."""
    # Nobody disables it meanwhile (lord/watchers/two_phases.py): the server would refuse.
    async with run.named_lock(f"tables of {name}"), run.extra_session(dest) as guard:
        tables = await publications.carried(source, name)
        await subscriptions.refresh(await run.node(dest), name, guard, tables)


async def unpublish(conn: Connection, name: str, table: str) -> None:
    """Takes a table out of a channel on the publisher's side."""
    if table in await publications.carried(conn, name):
        await publications.remove(conn, name, await need_relation(conn, table))


@step("register")
@dataclass(frozen=True)
class Register(PartBetween, UndoableStep):
    """Makes a channel know the data table of a partition, without letting a row of it through."""

    def makes(self) -> Made:
        return Made(
            f"{self.part} in the channel from node {self.src} to node {self.dest}", shared=True
        )

    async def do(self, run: Run) -> None:
        name = names.channel(run.cluster_id, self.src, self.dest)
        source = await run.node(self.src)
        data = await data_table(source, self.part)
        await refuse_stricter(run, self.part, self.src, self.dest)
        if data not in await publications.carried(source, name):
            table = await need_relation(source, data)
            await under_locks(
                run,
                source,
                self.src,
                [data],
                PUBLISHING,
                lambda: publications.add(source, name, table, closed=True),
            )
        # The subscriber would apply what is still on its way from a time when the channel carried the table.
        await catch_up(run, source, name)
        await quiet(source, name)
        await refresh(run, name, source, self.dest)

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
    await refresh(run, name, source, dest)


async def leave_all(run: Run, part: str, dest: int, name: str) -> list[str]:
    """Takes a copy that nobody follows with out of the channels that still carry it: one was needed again
    before it was ended, with all that was given up over it. What still feeds it afterwards.

    Args:
        name: its data table, as the metadata writes names.
    """
    conn = await run.node(dest)
    for feeding in await subscriptions.feeding(conn, name):
        src = names.channel_source(run.cluster_id, feeding, dest)
        if src is not None:
            with suppress(RemovedNodeAway):
                await leave(run, part, src, dest)
    return await subscriptions.feeding(conn, name)


@step("leave_channel")
@dataclass(frozen=True)
class LeaveChannel(PartBetween, FinishStep):
    """Takes one partition out of the channel between two nodes."""

    leaves = "the partition in a channel that it needs no more"

    async def do(self, run: Run) -> None:
        await leave(run, self.part, self.src, self.dest)


@step("take_out")
@dataclass(frozen=True)
class TakeOut(FinishStep):
    """Takes partitions out of a channel that goes on with those of other tables, also where its worker fails
    with what comes for them: one that begins anew passes over tables that its subscription does not know.

    What is on its way for them is left to that; `Register` waits for it.
    """

    leaves = "partitions in a channel that they need no more"
    waits = "commits on the primaries' node, while the channel's worker fails"

    src: int
    dest: int
    parts: list[str]

    def scope(self) -> Scope:
        return Scope.of([self.src, self.dest], self.parts)

    async def do(self, run: Run) -> None:
        name = names.channel(run.cluster_id, self.src, self.dest)
        lord, source, dest = [await run.node(n) for n in (0, self.src, self.dest)]
        for part in self.parts:
            follows = "select shardman.follows(%s, %s, %s)"
            if await value(lord, follows, part, self.src, self.dest):
                continue  # A later command has brought it back.
            await unpublish(source, name, await data_table(source, part))
            # Where there is no such table at all its worker would go on to fail.
            await dest.execute("select shardman.stand_in(%s)", (part,))
        await refresh(run, name, source, self.dest)
