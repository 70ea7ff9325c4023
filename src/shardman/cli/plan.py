"""Dry runs: the plan of a command for the cluster as it is now, made and printed, and nothing done.

The same code plans here and in the shardlord: the command's own `survey` and `plan`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

import psycopg
import typer
from rich.text import Text
from typer.core import TyperGroup

from shardman.cli import output
from shardman.client.calls import call
from shardman.commands.base import Command, Facts
from shardman.commands.drain_node import DrainNode
from shardman.commands.rebalance import Rebalance
from shardman.commands.set_replevel import SetReplevel
from shardman.model.cluster import Cluster
from shardman.model.placement import Move, Placement, Spread
from shardman.model.plan import Plan
from shardman.model.replicas import Change
from shardman.nodes.facts import gather_facts
from shardman.nodes.reach import NodeError, Reach
from shardman.pg.connection import Connection, SyncConnection
from shardman.sql.loader import queries

app = typer.Typer()

Moves = tuple[Move | Change, ...]


@app.command(
    "plan",
    rich_help_panel="Look",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def plan(
    context: typer.Context,
    command: Annotated[str, typer.Argument(help="A command, e.g. move-part.", show_default=False)],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARGS...", help="Its arguments and options.", show_default=False),
    ] = None,
) -> None:
    """Print what a command would do, step by step, and do nothing.

    The same as COMMAND ARGS... --plan.
    """
    above = context.parent
    found = None
    if above is not None and isinstance(above.command, TyperGroup):
        found = above.command.get_command(above, command)
    if found is None or not any("--plan" in p.opts for p in found.params):
        raise typer.BadParameter(f"there is no plan for {command!r}", context)
    with found.make_context(command, [*(arguments or ()), "--plan"], parent=above) as inner:
        found.invoke(inner)


def show(dsn: str, verb: type[Command], given: Mapping[str, Any], *, json: bool = False) -> None:
    """Prints what a command would do.

    Args:
        given: its arguments, by name.

    Raises:
        UserError: the cluster's state forbids the command, as the shardlord would say.
    """
    with Reach(dsn) as reach:
        with reach.open(reach.lord) as lord:
            command = _submitted(lord, verb, given)
        facts = asyncio.run(_facts(reach, command))
    made = command.plan(facts)
    placement = command.placement(facts) if isinstance(command, Rebalance) else None
    moves = _moves(command, facts, placement)
    if json:
        output.print_json(_document(command, made, moves, placement))
        return
    if placement is None:
        _print_plan(made)
    if moves is not None:
        _print_moves(moves, facts.cluster)
    if placement is not None:
        output.stdout().print(
            output.table(_SPREAD, _spread_rows(placement.before, placement.after))
        )
    _print_warnings(made)


def _moves(command: Command, facts: Facts, placement: Placement | None) -> Moves | None:
    """What a command that consists of others would do by them."""
    if isinstance(command, SetReplevel):
        return tuple(command.changes(facts))
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


def _document(
    command: Command,
    made: Plan,
    moves: Moves | None,
    placement: Placement | None,
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "command": command.name,
        "options": command.options(),
        "steps": [
            {"n": n, "phase": phase, "kind": s.kind, "title": s.title, "args": dict(s.args)}
            for n, phase, s in made.steps()
        ],
        "warnings": list(made.warnings),
    }
    if moves is not None:
        document["moves"] = list(moves)
    if placement is not None:
        document |= {"before": placement.before.nodes, "after": placement.after.nodes}
    return document


_PHASES = {
    "prepare": "prepare (undone if anything fails)",
    "switch": "switch (one transaction decides)",
    "finish": "finish (repeated until it is done)",
}


def _print_plan(made: Plan) -> None:
    console = output.stdout()
    rows = []
    last = ""
    for n, phase, step in made.steps():
        rows.append((n, _PHASES[phase] if phase != last else None, step.title))
        last = phase
    console.print(output.table(("step", "phase", "what"), rows))


def _print_moves(moves: Moves, cluster: Cluster) -> None:
    if not moves:
        output.stdout().print("There is nothing to do.")
        return
    rows = [_change(m, cluster) if isinstance(m, Change) else _move(m) for m in moves]
    output.stdout().print(output.table(("partition", "what", "from node", "to node", "size"), rows))


_Row = tuple[str, str, int | None, int | None, str | None]


def _move(move: Move) -> _Row:
    if move.kind == "move":
        what = "move the primary" if move.via is None else "move the replica"
    else:
        what = "drop the replica" if move.kind == "drop" else "change places with the replica"
    size = output.size(move.bytes) if move.bytes else None
    return move.part_name, what, move.src, None if move.kind == "drop" else move.dest, size


def _change(change: Change, cluster: Cluster) -> _Row:
    if not change.add:
        return change.part_name, "drop the replica", change.node, None, None
    old = any(c.owner == change.node for c in cluster.copies_of(change.part_name))
    what = "bring the old replica up to date" if old else "make a replica"
    return change.part_name, what, cluster.primaries[change.part_name].owner, change.node, None


_SPREAD = ("node", "partitions", "then", "size", "then", "replicas", "then")


def _spread_rows(before: Spread, after: Spread) -> list[tuple[Any, ...]]:
    return [
        (
            node,
            load.copies,
            after.nodes[node].copies,
            output.size(load.bytes),
            output.size(after.nodes[node].bytes),
            load.replicas,
            after.nodes[node].replicas,
        )
        for node, load in sorted(before.nodes.items())
    ]


def _print_warnings(made: Plan) -> None:
    for warning in made.warnings:
        output.stdout().print(Text(f"warning: {warning}", style="yellow"))
