"""Brings the shadow up to date with what is in the log."""

from __future__ import annotations

import time
from dataclasses import dataclass

from psycopg import sql

from shardman.errors import Code, UserError
from shardman.pg.bounded import unhurried
from shardman.pg.connection import Connection
from shardman.steps.base import OfTable, PrepareStep, Run, step
from shardman.steps.catalog import relation as find
from shardman.steps.conversion.definition import explained
from shardman.steps.locks import rolled_back

#: What is replayed within this fits into a cut-over; a little more with each round that it takes.
SHORT_S = 0.008
LONGER_S = 0.001
#: So many rounds without an end, and the application writes faster than we can follow.
MAX_ROUNDS = 500


async def replay(conn: Connection, run: Run, table: str) -> int:
    """Brings the shadow up to date with all that is committed; returns how much there was.

    The table is locked before the snapshot is taken: a truncation that commits in between would leave
    its rows visible in neither.
    """
    found = await find(conn, table)
    if found is None:
        raise UserError(
            f"{table} is gone", "It was dropped or renamed meanwhile", code=Code.CHANGED_MEANWHILE
        )
    async with rolled_back(conn):
        await conn.execute("begin isolation level repeatable read")
        await conn.execute(sql.SQL("lock table only {} in access share mode").format(found))
        with unhurried(conn):
            cur = await conn.execute(
                sql.SQL("select {}()").format(sql.Identifier("shardman", f"replay_c{run.cmd_id}"))
            )
            row = await cur.fetchone()
        await conn.execute("commit")
    return int(row[0]) if row else 0


async def catch_up(run: Run, conn: Connection, table: str) -> None:
    """Replays until little is left.

    Raises:
        UserError: the application writes faster than this can follow.
    """
    for number in range(MAX_ROUNDS):
        begun = time.monotonic()
        entries = await replay(conn, run, table)
        if entries == 0 or time.monotonic() - begun < SHORT_S + number * LONGER_S:
            await run.waits_for(None)
            return
        await run.waits_for(f"{entries} writes to {table} to be caught up with")
    raise UserError(
        f"{table} is written to faster than its partitions can follow",
        "Try again when there is less to do",
        code=Code.TOO_BUSY,
    )


@step("conversion_catch_up")
@dataclass(frozen=True)
class ConversionCatchUp(OfTable, PrepareStep):
    """Follows the writes that came during copy and index build."""

    leaves = "rows; they go with the partitions"

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        async with explained(conn, self.relation, self.definition):
            await catch_up(run, conn, self.relation)
