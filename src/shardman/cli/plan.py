"""Dry runs: the plan of a command for the cluster as it is now, printed, and nothing done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperGroup

from shardman import units
from shardman.cli import output
from shardman.commands.base import Command
from shardman.model.cluster import Cluster
from shardman.model.placement import Move, Spread
from shardman.model.plan import Plan
from shardman.model.replicas import Change
from shardman.preview import Moves, Preview, preview

app = typer.Typer()


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
    made = preview(dsn, verb, given)
    if json:
        output.print_json(_document(made))
        return
    if made.placement is None:
        _print_plan(made.plan)
    if made.moves is not None:
        _print_moves(made.moves, made.cluster)
    if made.placement is not None:
        rows = _spread_rows(made.placement.before, made.placement.after)
        output.stdout().print(output.table(_SPREAD, rows))
    _print_warnings(made.plan)


def _document(made: Preview) -> dict[str, Any]:
    document: dict[str, Any] = {
        "command": made.command.name,
        "options": made.command.options(),
        "steps": [
            {"n": n, "phase": phase, "kind": s.kind, "title": s.title, "args": dict(s.args)}
            for n, phase, s in made.plan.steps()
        ],
        "warnings": list(made.plan.warnings),
    }
    if made.moves is not None:
        document["moves"] = list(made.moves)
    if made.placement is not None:
        document |= {"before": made.placement.before.nodes, "after": made.placement.after.nodes}
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
    size = units.size(move.bytes) if move.bytes else None
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
            units.size(load.bytes),
            units.size(after.nodes[node].bytes),
            load.replicas,
            after.nodes[node].replicas,
        )
        for node, load in sorted(before.nodes.items())
    ]


def _print_warnings(made: Plan) -> None:
    for warning in made.warnings:
        output.stdout().print(Text(f"warning: {warning}", style="yellow"))
