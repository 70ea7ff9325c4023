"""`shardman clean`: drops the tables that were set aside."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.text import Text

from shardman import units
from shardman.cli import output
from shardman.cli.exits import Exit
from shardman.cli.options import Dsn, Json
from shardman.errors import Code, UserError
from shardman.nodes import clean as tables
from shardman.nodes.clean import Aside, Found
from shardman.nodes.reach import Reach

app = typer.Typer()


@app.command(rich_help_panel="Cluster")
def clean(
    dsn: Dsn,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list them, and what speaks against it.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    node: Annotated[
        int | None,
        typer.Option(metavar="ID", help="Only on this node.", show_default=False),
    ] = None,
    found: Annotated[
        bool,
        typer.Option(
            "--found", help="Also tables that add-node found: they may be another cluster's."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Drop the tables that were set aside on nodes that were replaced.

    They may hold writes that were never acknowledged. One is dropped only when the primary of its
    partition is up. The exit code is 1 when a table was kept or a node could not be asked.
    """
    with Reach(dsn) as reach:
        if node is not None and node not in {n.id for n in reach.members}:
            raise UserError(
                f"there is no node {node}", "See shardman status", code=Code.NO_SUCH_NODE
            )
        seen = tables.find(reach, None if node is None else [node], found=found)
        doomed = [t for t in seen.tables if t.kept is None]
        if not json:
            _print(seen.tables)
        if doomed and not dry_run:
            _confirm(doomed, yes=yes, quiet=json)
            seen = Found(tuple(tables.drop(reach, seen.tables)), seen.away)
    _print_end(seen, dry_run=dry_run, json=json)
    kept = any(t.kept for t in seen.tables)
    raise typer.Exit(Exit.FAILED if kept or seen.away else Exit.OK)


def _confirm(doomed: Sequence[Aside], *, yes: bool, quiet: bool) -> None:
    if yes:
        return
    if quiet or not sys.stdin.isatty():
        raise typer.BadParameter("give --yes to drop them, or --dry-run: there is nobody to ask")
    total = units.size(sum(t.bytes or 0 for t in doomed))
    if not typer.confirm(f"Drop {_tables(len(doomed))} ({total})?", err=True):
        output.stderr().print("Nothing was dropped.")
        raise typer.Exit(Exit.FAILED)


def _tables(count: int) -> str:
    return f"{count} table{'' if count == 1 else 's'}"


def _print(listed: Sequence[Aside]) -> None:
    rows = [
        (
            t.node,
            t.name,
            t.part_name,
            units.size(t.bytes),
            t.rows,
            units.moment(t.since),
            f"{t.cmd_type} {t.cmd_id}",
        )
        for t in listed
    ]
    if rows:
        columns = ("node", "table", "was", "size", "rows (about)", "since", "by command")
        output.stdout().print(output.table(columns, rows))
    else:
        output.stdout().print("No tables are set aside.")


def _print_end(seen: Found, *, dry_run: bool, json: bool) -> None:
    if json:
        away = [{"node": a.node, "problem": a.problem} for a in seen.away]
        output.print_json({"tables": list(seen.tables), "unreachable": away})
        return
    console = output.stdout()
    for table in seen.tables:
        if table.kept:
            console.print(Text(f"{table.name} on node {table.node} is kept: {table.kept}", "red"))
    for node in seen.away:
        console.print(Text(f"node {node.node} was not asked: {node.problem}", "red"))
    dropped = [t for t in seen.tables if t.dropped]
    if dropped:
        freed = units.size(sum(t.bytes or 0 for t in dropped))
        console.print(Text(f"Dropped {_tables(len(dropped))} ({freed}).", "green"))
    elif dry_run and any(t.kept is None for t in seen.tables):
        console.print("Nothing was dropped: this was a dry run.")
