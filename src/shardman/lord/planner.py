"""From a command to its plan: reads the cluster, asks the nodes, decides."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg

from shardman.commands.base import Command, Facts, Question
from shardman.lord.cluster_reader import read_cluster
from shardman.model.plan import Plan
from shardman.steps.base import Run
from shardman.tasks import all_of


async def make_plan(command: Command, run: Run) -> Plan:
    """Plans a command for the cluster as it is now.

    Raises:
        UserError: the cluster's state forbids the command.
    """
    return command.plan(await gather_facts(command, run))


async def gather_facts(command: Command, run: Run) -> Facts:
    """The metadata of one snapshot, and the nodes' answers to the command's questions."""
    cluster = await read_cluster(await run.node(0))
    questions = command.survey(cluster)
    answers = await all_of(*(_ask(run, q) for q in questions))
    found = {q.key: a for q, a in zip(questions, answers, strict=True)}
    return Facts(cluster, run.cmd_id, found)


async def _ask(run: Run, question: Question) -> Any:
    """The node's answer; None when it cannot be reached."""
    try:
        async with asyncio.timeout(question.patience):
            conn = await run.node(question.node)
            row = await (await conn.execute(question.sql.encode(), question.params)).fetchone()
    except (psycopg.OperationalError, TimeoutError):
        return None
    return row[0] if row else None
