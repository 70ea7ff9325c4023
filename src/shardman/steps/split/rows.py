"""The rows of the new data tables: copied, caught up with, compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from shardman.errors import Code, UserError
from shardman.pg.bounded import unhurried
from shardman.pg.connection import Connection
from shardman.steps.base import PrepareStep, Run, step
from shardman.steps.catalog import value
from shardman.steps.following import follow
from shardman.steps.handed import CopyEnd
from shardman.steps.locks import Busy, rolled_back
from shardman.steps.split.base import OfSplit, on_each, rows

#: An old table was truncated: `shardman.replay_split` raises it.
TRUNCATED = "SHM16"
#: What is replayed within this fits into a cut-over.
SHORT_S = 0.008


async def copy_all(run: Run, split: OfSplit, conn: Connection, node: int) -> None:
    """Copies the rows of all old data tables on a node to the new ones, which are emptied before.

    Each is copied under a snapshot of its own, younger than its log.
    """
    await conn.execute("select shardman.restart_split(%s, %s)", (split.relation, run.cmd_id))
    for j in split.olds(node):
        with unhurried(conn):
            copied = await value(
                conn,
                "select shardman.split_copy(%s, shardman.data_table(shardman.suffixed(%s, %s)), %s)",
                *(split.relation, split.relation, f"_{j}", run.cmd_id),
            )
        run.figures.rows = (run.figures.rows or 0) + int(copied)
        await run.progress(rows_done=run.figures.rows)
    # Who has an older snapshot would not see what was copied.
    (end,) = await rows(
        conn, "select clock_timestamp(), pg_snapshot_xmax(pg_current_snapshot())::xid::text"
    )
    run.handed.split[node] = CopyEnd(*end)


@step("split_copy")
@dataclass(frozen=True)
class SplitCopy(OfSplit, PrepareStep):
    """Copies the rows that are there when the log is already kept, on each node its own."""

    leaves = "rows; they go with the new data tables"

    async def do(self, run: Run) -> None:
        async def copy(node: int, conn: Connection) -> None:
            await copy_all(run, self, conn, node)

        await on_each(run, self.holders, copy)


async def replay(run: Run, split: OfSplit, conn: Connection) -> int:
    """Brings the new data tables of a node up to date with all that is committed; how much there was."""
    async with rolled_back(conn):
        await conn.execute("begin isolation level repeatable read")
        with unhurried(conn):
            done = await value(
                conn, "select shardman.replay_split(%s, %s, %s, %s)", *split.sizes, run.cmd_id
            )
        await conn.execute("commit")
    return int(done)


async def catch_up(run: Run, split: OfSplit, conn: Connection, node: int) -> None:
    """Replays until little is left.

    Raises:
        UserError: the application writes faster than this can follow.
    """

    async def again() -> int | None:
        try:
            return await replay(run, split, conn)
        except psycopg.Error as error:
            if error.sqlstate != TRUNCATED:
                raise
            await copy_all(run, split, conn, node)
            return None

    # All nodes follow at the same time: none of them says alone whom the step waits for.
    await follow(
        again,
        relation=split.relation,
        follower=f"new partitions on node {node}",
        short_s=SHORT_S,
    )


async def catch_up_all(run: Run, splits: Sequence[OfSplit]) -> None:
    """On all nodes at the same time; the tables of a group one after the other."""

    async def follow(node: int, conn: Connection) -> None:
        for split in splits:
            await catch_up(run, split, conn, node)

    await on_each(run, splits[0].holders, follow)


async def replay_rest(run: Run, split: OfSplit, conn: Connection, node: int) -> None:
    """What is left, while another session keeps all writers out; committed at once.

    As replication writes: the checks of new data tables would want the sharded table, which is locked.

    Raises:
        Busy: somebody has truncated the table just before.
    """
    async with rolled_back(conn):
        await conn.execute("begin")
        await conn.execute("set local session_replication_role = replica")
        # With it PostgreSQL would look at the bounds of an old data table, and lock the table for it.
        await conn.execute("set local constraint_exclusion = partition")
        # Channels have nothing to bring of it: replicas replay their own.
        await conn.execute("set local synchronous_commit = local")
        try:
            with unhurried(conn):
                await conn.execute(
                    "select shardman.replay_split(%s, %s, %s, %s)", (*split.sizes, run.cmd_id)
                )
        except psycopg.Error as error:
            if error.sqlstate != TRUNCATED:
                raise
            raise Busy(f"rows of {split.relation} to be copied anew on node {node}") from None
        await conn.execute("commit")


@step("split_verify")
@dataclass(frozen=True)
class SplitVerify(OfSplit, PrepareStep):
    """Follows the writes that came meanwhile, then compares old and new data tables on each node under one
    snapshot, leaving out the keys that are in the log: those are read again before the switch."""

    leaves = "nothing: locks end with their sessions"

    async def do(self, run: Run) -> None:
        async def verify(node: int, conn: Connection) -> None:
            await catch_up(run, self, conn, node)
            while not await self._same(run, node, conn):
                await catch_up(run, self, conn, node)

        await on_each(run, self.holders, verify)

    async def _same(self, run: Run, node: int, conn: Connection) -> bool:
        """False when a truncation came in between: all is copied anew then."""
        groups = await rows(
            conn,
            "select array_agg(distinct old), array_agg(distinct made)"
            " from shardman.split_groups(%s, %s, %s, %s) group by grp",
            *(*self.sizes, run.cmd_id),
        )
        for olds, mades in groups:
            with unhurried(conn):
                ((there, found, same),) = await rows(
                    conn,
                    "select rows, found, same from shardman.split_content(%s, %s, %s, %s)",
                    *(self.relation, olds, mades, run.cmd_id),
                )
            if same:
                continue
            if await value(
                conn, "select shardman.split_truncated(%s, %s)", self.relation, run.cmd_id
            ):
                return False
            raise UserError(
                f"{', '.join(olds)} on node {node} has {there} rows and what is made of it {found},"
                " or their contents differ",
                "Nothing was changed; report this with the server's log",
                code=Code.COPIES_DIFFER,
            )
        return True
