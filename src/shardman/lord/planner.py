"""From a command to its plan: reads the cluster, asks the nodes, decides."""

from __future__ import annotations

from shardman.commands.base import Command, Facts
from shardman.model.plan import Plan
from shardman.nodes import facts
from shardman.steps.base import Run


async def make_plan(command: Command, run: Run) -> Plan:
    """Plans a command for the cluster as it is now.

    Raises:
        UserError: the cluster's state forbids the command.
    """
    return command.plan(await gather_facts(command, run))


async def gather_facts(command: Command, run: Run) -> Facts:
    """The metadata of one snapshot, and the nodes' answers to the command's questions."""
    return await facts.gather_facts(command, run.cmd_id, await run.node(0), run.node)
