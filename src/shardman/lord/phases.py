"""The phases of an attempt, each as its plan has it: prepare, switch, finish."""

from __future__ import annotations

import psycopg

from shardman.lord.entry import Recorded
from shardman.lord.finisher import Finisher
from shardman.lord.in_doubt import Decision, Doubts
from shardman.lord.journal import LordLost
from shardman.lord.lease import LEASE_S
from shardman.lord.run import CommandRun
from shardman.model.plan import Plan
from shardman.pg.bounded import STATEMENT_S, unhurried
from shardman.pg.connection import Connection
from shardman.steps.base import bind
from shardman.tasks import all_of


async def prepare(plan: Plan, run: CommandRun) -> None:
    """Does what can be undone."""

    async def make(step: Recorded) -> None:
        await run.entry.start_step(step, durable=True)
        await bind("prepare", step).do(run)
        await run.entry.end_step(step, "done")

    for group in run.entry.groups(plan, "prepare"):
        await all_of(*(make(step) for step in group))


async def switch(plan: Plan, run: CommandRun, doubts: Doubts) -> None:
    """The point of no return: one transaction in the lord's database.

    Args:
        doubts: what was prepared and not ended, of all leaderships of this process.

    Raises:
        LordLost: the connection was lost, so nobody here knows whether it happened; the next leadership
            reads it in the journal. What clients wait for meanwhile, `lord/settlement.py` looks after.
    """
    conn = await run.node(0)
    held = doubts.stands(run.cmd_id)
    try:
        with unhurried(conn, LEASE_S if held else STATEMENT_S):
            async with conn.transaction():
                await _decide(conn, plan, run)
                # The last before its COMMIT is sent: without this it never was.
                doubts.decide(run.cmd_id, Decision.ASKED)
    except psycopg.OperationalError as error:
        if conn.closed or conn.broken:
            raise LordLost(str(error)) from error
        raise


async def _decide(conn: Connection, plan: Plan, run: CommandRun) -> None:
    await run.entry.switch(conn, run.epoch, run.figures.data())
    for step in plan.switch:
        await bind("switch", step).do(run)
    await run.entry.switched(conn)


async def finish(plan: Plan, run: CommandRun) -> None:
    """Does what only goes forward; what cannot be done now is left to the janitor."""
    finisher = Finisher(run, atomic=plan.atomic)
    for group in run.entry.groups(plan, "finish"):
        await all_of(*(finisher.do(step) for step in group))
    run.tell_left(finisher.left)
