"""The step that proves that two copies of a partition are the same."""

from __future__ import annotations

from dataclasses import dataclass

from shardman import names
from shardman.errors import Code, UserError
from shardman.pg.bounded import unhurried
from shardman.pg.connection import Connection
from shardman.steps.base import PartBetween, PrepareStep, Run, step
from shardman.steps.catalog import data_table
from shardman.steps.confirmation import catch_up, drain
from shardman.steps.locks import Deadline, begin_locked, patiently, rolled_back
from shardman.tasks import all_of


@step("verify_copy")
@dataclass(frozen=True)
class VerifyCopy(PartBetween, PrepareStep):
    """Compares both copies at one LSN: number of rows and an order-independent hash of all content.

    Writers are held (readers are not) only while the copy channel runs empty and both sides take a snapshot;
    the hashing runs under these snapshots while everybody writes again.
    """

    leaves = "nothing: locks end with their sessions"

    async def do(self, run: Run) -> None:
        async with run.extra_session(self.src) as source, run.extra_session(self.dest) as dest:
            here, there = await self._contents(run, source, dest)
        if here != there:
            raise UserError(
                f"the copies of {self.part} differ: {here[0]} rows on node {self.src},"
                f" {there[0]} on node {self.dest}",
                "Nothing was changed; report this with the logs of both servers",
                code=Code.COPIES_DIFFER,
            )
        run.figures.rows = (run.figures.rows or 0) + here[0]

    async def _contents(
        self, run: Run, source: Connection, dest: Connection
    ) -> list[tuple[int, str]]:
        emitter = await run.node(self.src)
        name = await data_table(emitter, self.part)
        stream = names.copy_channel(run.cluster_id, run.cmd_id)

        async def attempt(deadline: Deadline) -> None:
            await catch_up(run, emitter, stream)
            async with (
                run.cut_over_lock,
                rolled_back(holder),
                rolled_back(source),
                rolled_back(dest),
            ):
                await begin_locked(holder, [name], "share", deadline, self.src)
                await drain(emitter, [stream])
                await all_of(_take_snapshot(source), _take_snapshot(dest))
                await holder.execute("rollback")

        async with run.extra_session(self.src) as holder:
            await patiently(run, attempt)
        contents = await all_of(_content(source, name), _content(dest, name))
        for conn in (source, dest):
            await conn.execute("commit")
        return contents


async def _take_snapshot(conn: Connection) -> None:
    await conn.execute("begin isolation level repeatable read, read only")
    # One process on each server: a move runs beside the application, which needs the others.
    await conn.execute("set local max_parallel_workers_per_gather = 0")
    await conn.execute("select 1")


async def _content(conn: Connection, name: str) -> tuple[int, str]:
    with unhurried(conn):
        row = await (
            await conn.execute("select rows, hash from shardman.content_hash(%s)", (name,))
        ).fetchone()
    assert row is not None
    return int(row[0]), str(row[1])
