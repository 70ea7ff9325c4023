"""Brings the plain table up to date with what is in the log."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from shardman.errors import Code, UserError
from shardman.pg.bounded import unhurried
from shardman.pg.connection import Connection
from shardman.steps.base import PrepareStep, Run, step
from shardman.steps.catalog import value
from shardman.steps.following import follow
from shardman.steps.locks import rolled_back
from shardman.steps.unsharding.base import OfSharded

#: What is replayed within this fits into a cut-over.
SHORT_S = 0.008


def replayed(run: Run) -> sql.Composed:
    """The statement that brings the keys in the log up to date; its value is how many there were."""
    return sql.SQL("select {}()").format(sql.Identifier("shardman", f"replay_c{run.cmd_id}"))


async def _replay(run: Run, conn: Connection) -> int:
    async with rolled_back(conn):
        await conn.execute("begin isolation level repeatable read")
        with unhurried(conn):
            row = await (await conn.execute(replayed(run))).fetchone()
        await conn.execute("commit")
    return int(row[0]) if row else 0


async def catch_up(run: Run, conn: Connection, relation: str) -> None:
    """Replays until little is left.

    Raises:
        UserError: the application writes faster than this can follow.
    """

    async def replay() -> int:
        return await _replay(run, conn)

    await follow(
        replay,
        relation=relation,
        follower="the plain table",
        short_s=SHORT_S,
        tell=run.waits_for,
    )


async def check_unchanged(conn: Connection, relation: str, state: str) -> None:
    """Raises UserError when somebody has changed the table since the command was planned."""
    if await value(conn, "select shardman.unshard_state(%s)", relation) != state:
        raise UserError(
            f"{relation} was changed, or something was made of it, meanwhile",
            "It stays sharded; try again",
            code=Code.CHANGED_MEANWHILE,
        )


@step("unshard_catch_up")
@dataclass(frozen=True)
class UnshardCatchUp(OfSharded, PrepareStep):
    """Follows the writes that came during copy and index build."""

    leaves = "rows; they go with the plain table"

    async def do(self, run: Run) -> None:
        await catch_up(run, await run.node(self.node), self.relation)
