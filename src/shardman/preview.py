"""What a command would do: its plan for the cluster as it is now, made and not carried out.

The same code plans here and in the shardlord: the command's own `survey` and `plan`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg

from shardman.client.calls import call
from shardman.commands.base import Command, Facts
from shardman.commands.colocate import Colocate
from shardman.commands.drain_node import DrainNode
from shardman.commands.rebalance import Rebalance
from shardman.commands.set_replevel import SetReplevel
from shardman.model.cluster import Cluster
from shardman.model.placement import Move, Placement
from shardman.model.plan import Plan
from shardman.model.replicas import Change
from shardman.nodes.facts import gather_facts
from shardman.nodes.reach import NodeError, Reach
from shardman.pg.connection import Connection, SyncConnection
from shardman.sql.loader import queries

Moves = tuple[Move | Change, ...]


@dataclass(frozen=True)
class Preview:
    """A plan that nobody carries out.

    Args:
        command: as it would be submitted.
        plan: its steps.
        cluster: for which it was made.
        moves: what a command that consists of others would do by them; None: it consists of none.
        placement: of `rebalance`: before and after.
    """

    command: Command
    plan: Plan
    cluster: Cluster
    moves: Moves | None
    placement: Placement | None


def preview(dsn: str, verb: type[Command], given: Mapping[str, Any]) -> Preview:
    """Makes the plan of a command. Not to be called in an event loop.

    Args:
        dsn: of any node.
        given: its arguments, by name.

    Raises:
        UserError: the cluster's state forbids the command, as the shardlord would say.
    """
    with Reach(dsn) as reach:
        with reach.open(reach.lord) as lord:
            command = _submitted(lord, verb, given)
        facts = asyncio.run(_facts(reach, command))
    placement = command.placement(facts) if isinstance(command, Rebalance) else None
    return Preview(
        command, command.plan(facts), facts.cluster, _moves(command, facts, placement), placement
    )


def _moves(command: Command, facts: Facts, placement: Placement | None) -> Moves | None:
    if isinstance(command, SetReplevel):
        return tuple(command.changes(facts))
    if isinstance(command, Colocate):
        found = command.gathering(facts.cluster)
        return (*found.moves, *found.changes)
    if isinstance(command, DrainNode):
        return tuple(command.moves(facts)) if command.drain else ()
    return placement.moves if placement is not None else None


def _submitted(lord: SyncConnection, verb: type[Command], given: Mapping[str, Any]) -> Command:
    """The command as its SQL function would write it down: the call is rolled back."""
    with lord.transaction(force_rollback=True):
        (submitted,) = lord.execute(call(verb.name, given), dict(given)).fetchall()
        options = lord.execute(queries("plan")["options"], (submitted["id"],)).fetchall()
    return verb.from_options((o["name"], o["opt"]) for o in options)


async def _facts(reach: Reach, command: Command) -> Facts:
    async with reach.sessions() as session:

        async def node(node_id: int) -> Connection:
            try:
                return await session(node_id)
            except NodeError as error:
                raise psycopg.OperationalError(str(error)) from None

        return await gather_facts(command, 0, await session(reach.lord), node)
