"""What a plan is made of: the metadata, and what the nodes say to the command's questions.

The shardlord and `--plan` ask in the same way: the one on its admitted sessions, the other on those of
whoever calls it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg

from shardman.commands.base import Command, Facts, Question
from shardman.errors import Code, UserError
from shardman.pg.connection import Connection
from shardman.pg.metadata import read_cluster
from shardman.tasks import all_of

#: How to get a session on a node; raises psycopg.OperationalError when that cannot be reached.
Sessions = Callable[[int], Awaitable[Connection]]


async def gather_facts(command: Command, cmd_id: int, lord: Connection, node: Sessions) -> Facts:
    """The metadata of one snapshot, and the nodes' answers, asked for at the same time.

    Args:
        cmd_id: of the command; 0 in a dry run.
        lord: a session on the lord's database.
        node: sessions on the nodes, the same one each time a node is asked for.

    Raises:
        psycopg.Error: a node refuses a question, or the lord's database cannot be reached.
    """
    cluster = await read_cluster(lord)
    questions = command.survey(cluster)
    answers = await all_of(*(_ask(node, q) for q in questions))
    return Facts(cluster, cmd_id, {q.key: a for q, a in zip(questions, answers, strict=True)})


async def _ask(node: Sessions, question: Question) -> Any:
    """The node's answer; None when it cannot be reached."""
    try:
        async with asyncio.timeout(question.patience):
            conn = await node(question.node)
            row = await (await conn.execute(question.sql.encode(), question.params)).fetchone()
    except (psycopg.OperationalError, TimeoutError):
        return None
    except UserError as error:
        if question.member or error.code is not Code.NOT_A_MEMBER:
            raise
        return None
    return row[0] if row else None
