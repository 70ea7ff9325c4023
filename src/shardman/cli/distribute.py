"""`shardman distribute`: a whole application in one command."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from shardman.cli import distribution_file, output
from shardman.cli.distribution_steps import carry_out, give_objects, in_words
from shardman.cli.exits import Exit
from shardman.cli.options import INT_MAX, Dsn, Json
from shardman.errors import Code, UserError
from shardman.model.application import SHARDED, Application, split_wish
from shardman.model.distribution import (
    Action,
    Distribution,
    Obstacle,
    actions,
    obstacles,
)
from shardman.model.proposal import MEGABYTE, Wishes, default_partitions, propose
from shardman.nodes import application as database
from shardman.nodes.reach import Reach

app = typer.Typer()

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 1024,
    "mb": MEGABYTE,
    "gb": 1024 * MEGABYTE,
    "tb": 1024**2 * MEGABYTE,
}


_NOTHING_BIG = (
    "No table is to be sharded. --shard TABLE=COLUMN says which is to be all the same,"
    " --shared-below SIZE what is small."
)


@dataclass(frozen=True)
class Seen:
    """A database, what is to become of it, what is in the way, and what is to be done."""

    application: Application
    wanted: Distribution
    obstacles: Sequence[Obstacle]
    actions: Sequence[Action]


@app.command(rich_help_panel="Change the cluster (the shardlord does the work)")
def distribute(
    dsn: Dsn,
    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan",
            metavar="FILE",
            help="The plan: written there as TOML if the file does not exist, else read from it.",
            show_default=False,
        ),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Carry the plan out; what is done already is left.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    node: Annotated[
        int | None,
        typer.Option(
            metavar="ID",
            min=1,
            max=INT_MAX,
            help="The worker that has the tables; the one that --dsn leads to.",
            show_default=False,
        ),
    ] = None,
    shard: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TABLE=COLUMN",
            help="Shard this table by this column, big or not; may be given again.",
            show_default=False,
        ),
    ] = None,
    shared_below: Annotated[
        str,
        typer.Option(
            metavar="SIZE", help="Tables that are smaller are shared if they may be: 500kB, 2GB."
        ),
    ] = "100MB",
    partitions: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=4096,
            help="How many partitions sharded tables get; a few for each worker.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Propose how to spread an application's tables over the cluster, and do it.

    Reads a worker's tables, keys, foreign keys and sizes (and pg_stat_statements, where it is), and says
    for each table whether it is sharded, by what and with which others, or shared, or stays plain; and all
    that is in the way of all of them, with the statements that help. Nothing is changed without --apply.
    The exit code is 1 where something is in the way.
    """
    wishes = Wishes(_bytes(shared_below), _wished(shard or ()), partitions)
    with Reach(dsn) as reach:
        given = plan is not None and plan.exists()
        if given and (shard or partitions is not None):
            raise typer.BadParameter(
                f"{plan} says it already: --shard and --partitions are for a new plan"
            )
        seen = _look(reach, node, wishes, plan if given else None)
        text = distribution_file.write(seen.application, seen.wanted, seen.obstacles)
        if plan is not None and not given:
            plan.write_text(text, "utf-8")
        if json:
            output.print_json(_document(seen))
        else:
            _print(seen, text, plan, given=given)
        if apply:
            _apply(reach, dsn, seen, yes=yes, json=json)
    raise typer.Exit(Exit.FAILED if seen.obstacles else Exit.OK)


def _bytes(size: str) -> int:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", size, re.IGNORECASE)
    if not found or found[2].lower() not in _UNITS:
        raise typer.BadParameter(f"{size!r} is no size: write 500kB, 100MB or 2GB")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def _wished(shard: Sequence[str]) -> dict[str, str]:
    found = {}
    for word in shard:
        wish = split_wish(word)
        if wish is None:
            raise typer.BadParameter(f"{word!r}: write --shard TABLE=COLUMN")
        found[wish[0]] = wish[1]
    return found


def _look(reach: Reach, node: int | None, wishes: Wishes, plan: Path | None) -> Seen:
    known = {n.id for n in reach.members if n.status is not None}
    here = reach.my_id if node is None else node
    if here not in known:
        what = "is the lord's, and holds no tables" if here == reach.lord else "is no worker"
        raise UserError(
            f"node {here} {what}",
            "Name the worker that has them with --node",
            code=Code.NO_SUCH_NODE,
        )
    with reach.open(here) as session:
        application = database.read(session)
        if plan is None:
            shard = {database.normal(session, t): c for t, c in wishes.shard.items()}
            known_columns = _columns(application, shard)
            wanted = propose(application, here, replace(wishes, shard=known_columns))
        else:
            wanted = distribution_file.read(plan, application)
            if wanted.node != here:
                if node is not None or wanted.node not in known:
                    raise UserError(
                        f"{plan} is a plan for node {wanted.node}, not for node {here}",
                        "Name that node, or another file",
                        code=Code.BAD_ARGUMENT,
                    )
                return _look(reach, wanted.node, wishes, plan)
        asked = database.ask(session, application, wanted, default_partitions(application.workers))
    found = obstacles(application, wanted, asked)
    return Seen(application, wanted, found, actions(application, wanted, asked))


def _columns(application: Application, shard: dict[str, str]) -> dict[str, str]:
    """The columns that are wished for, as the table's are written."""
    found = {}
    for name, wish in shard.items():
        table = application.tables.get(name)
        if table is None:
            raise UserError(
                f"there is no table {name} on this node",
                "The tables are: " + ", ".join(application.tables),
                code=Code.BAD_ARGUMENT,
            )
        columns = table.columns_of(wish) or ()
        if len(columns) != 1 or columns[0] not in table.types:
            raise UserError(
                f"{name} has no column {wish}",
                f"The columns are: {', '.join(table.types)}",
                code=Code.BAD_ARGUMENT,
            )
        found[name] = columns[0]
    return found


# -- doing it -----------------------------------------------------------------------------------------


def _apply(reach: Reach, dsn: str, seen: Seen, *, yes: bool, json: bool) -> None:
    if seen.obstacles:
        raise UserError(
            f"{_count(len(seen.obstacles), 'thing')} in the way, so nothing was done",
            "See above what helps; or write other words into the plan (--plan FILE)",
            code=Code.TABLE_UNSUITABLE,
        )
    if not seen.actions:
        give_objects(reach, seen.wanted.node)
        return
    if not yes:
        if json or not sys.stdin.isatty():
            raise typer.BadParameter("give --yes to do it: there is nobody to ask")
        if not typer.confirm(f"Do these {_count(len(seen.actions), 'step')}?", err=True):
            output.stderr().print("Nothing was done.")
            raise typer.Exit(Exit.FAILED)
    carry_out(reach, dsn, seen.wanted.node, seen.actions)
    if not json:
        output.stdout().print(Text("The database is distributed.", "green"))


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


# -- saying it ----------------------------------------------------------------------------------------


def _document(seen: Seen) -> dict[str, Any]:
    return {
        "node": seen.wanted.node,
        "tables": {
            name: {
                "as": choice.how,
                "by": choice.by,
                "partitions": choice.partitions,
                "colocate_with": choice.colocate_with,
                "why": choice.why,
                "now": seen.application.tables[name].state,
                "bytes": seen.application.tables[name].bytes,
            }
            for name, choice in seen.wanted.choices.items()
        },
        "obstacles": list(seen.obstacles),
        "steps": [in_words(a) for a in seen.actions],
    }


def _print(seen: Seen, text: str, plan: Path | None, *, given: bool) -> None:
    console = output.stdout()
    mark = "# " if plan is None else ""
    if plan is None:
        sys.stdout.write(text)
    elif not given:
        console.print(
            Text(f"{plan} has the plan: look at it, change it, and carry it out with --apply.")
        )
    if not seen.application.tables:
        console.print(Text(f"Node {seen.wanted.node} has no tables."))
        return
    if not any(c.how == SHARDED for c in seen.wanted.choices.values()):
        sys.stdout.write(f"{mark}{_NOTHING_BIG}\n")
    for n, obstacle in enumerate(seen.obstacles, 1):
        _print_obstacle(n, obstacle, mark)
    if not seen.obstacles:
        for n, action in enumerate(seen.actions, 1):
            sys.stdout.write(f"{mark}{n}. {in_words(action)}\n")
        if not seen.actions:
            sys.stdout.write(f"{mark}Nothing is left to be done.\n")


def _print_obstacle(number: int, obstacle: Obstacle, mark: str) -> None:
    sys.stdout.write(f"{mark}{number}. {obstacle.table}: {obstacle.what}.\n")
    for way in filter(None, (obstacle.sql, *obstacle.ways)):
        sys.stdout.write(f"{mark}    {way}\n")
