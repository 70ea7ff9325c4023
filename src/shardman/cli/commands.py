"""One command for each SQL command: submits it as any user would, and follows it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from inspect import Parameter, signature
from typing import Annotated, Any

import typer

from shardman.cli import complete, output, plan, wait
from shardman.cli.options import DryRun, Dsn, Json, NodeId, NoWait, PartName, Relation, Timeout
from shardman.client import Client, Result, connect

app = typer.Typer()


class Measure(StrEnum):
    """What rebalance evens out."""

    NUMBER = "number"
    BYTES = "bytes"


_PANEL = "Change the cluster (the shardlord does the work)"
#: What a command is given, in the order of the client's method.
Arguments = tuple[Any, ...]


def _run(
    method: Callable[..., Result],
    arguments: Arguments,
    *,
    dsn: Dsn,
    no_wait: NoWait = False,
    timeout: Timeout = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    if dry_run:
        plan.show(dsn, method.__name__, arguments, json=json)
        return
    with connect(dsn) as client:
        submitted = method(client, *arguments, wait=False)
    if not no_wait:
        wait.follow(dsn, submitted.id, timeout, json=json)
    elif json:
        output.print_json(submitted)
    else:
        typer.echo(submitted.id)


#: The options that every command has.
_HOW = [
    p
    for p in signature(_run, eval_str=True).parameters.values()
    if p.kind is Parameter.KEYWORD_ONLY
]


def _command(
    method: Callable[..., Result],
) -> Callable[[Callable[..., Arguments]], Callable[..., None]]:
    """Makes a command of the program out of a function that reads its own arguments.

    Args:
        method: of the client, which submits it.
    """

    def register(read: Callable[..., Arguments]) -> Callable[..., None]:
        own = signature(read, eval_str=True)

        @wraps(read)
        def run(**given: Any) -> None:
            how = {p.name: given.pop(p.name) for p in _HOW}
            _run(method, read(**given), **how)

        named = [p.replace(kind=Parameter.KEYWORD_ONLY) for p in (*own.parameters.values(), *_HOW)]
        # The program's options are read off the signature.
        vars(run)["__signature__"] = own.replace(parameters=named)
        app.command(rich_help_panel=_PANEL)(run)
        return run

    return register


@_command(Client.add_node)
def add_node(
    connstring: Annotated[
        str,
        typer.Argument(
            metavar="CONNSTRING",
            help="A libpq connection string that reaches the server from every node; - reads it "
            "from standard input, so that a password is not seen in the list of processes.",
            show_default=False,
        ),
    ],
    zone: Annotated[
        str | None,
        typer.Option(help="What it may fail together with, say a rack.", show_default=False),
    ] = None,
) -> Arguments:
    """Add a server to the cluster as a worker."""
    if connstring == "-":
        connstring = sys.stdin.readline().strip()
    return connstring, zone


@_command(Client.set_zone)
def set_zone(
    node_id: NodeId,
    zone: Annotated[
        str | None,
        typer.Argument(
            metavar="[ZONE]",
            help="What it may fail together with, say a rack; left out: with no other node.",
            show_default=False,
        ),
    ] = None,
) -> Arguments:
    """Say what a worker may fail together with: copies go to different zones where they can."""
    return node_id, zone


@_command(Client.drain_node)
def drain_node(
    node_id: NodeId,
    end: Annotated[
        bool, typer.Option("--end", help="It may have partitions again.", show_default=False)
    ] = False,
) -> Arguments:
    """Move all partitions and replicas off a worker, and place no new ones on it."""
    return node_id, not end


@_command(Client.rm_node)
def rm_node(
    node_id: NodeId,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Even if it holds partitions or is dead. Its rows become unreachable."
        ),
    ] = False,
) -> Arguments:
    """Remove a worker from the cluster; its data stay on it."""
    return node_id, force


@_command(Client.create_hash_partitions)
def create_hash_partitions(
    node_id: NodeId,
    relation: Annotated[
        str,
        typer.Argument(
            metavar="RELATION",
            help="The plain table on that worker, with its rows.",
            show_default=False,
        ),
    ],
    expr: Annotated[
        str,
        typer.Argument(
            metavar="EXPR",
            help="What to shard by: a column, several (a, b), or an immutable expression.",
            show_default=False,
        ),
    ],
    partitions_count: Annotated[
        int,
        typer.Argument(
            metavar="PARTITIONS_COUNT", min=1, max=4096, help="Into how many.", show_default=False
        ),
    ],
    rebalance: Annotated[
        bool, typer.Option(help="Spread the partitions over all workers at once.")
    ] = True,
) -> Arguments:
    """Shard a table that lies on one worker, while it is read and written."""
    return node_id, relation, expr, partitions_count, rebalance


@_command(Client.move_part)
def move_part(
    part_name: PartName,
    dest: NodeId,
    src: Annotated[
        int | None,
        typer.Option(
            help="Move the copy on this node; the primary's if not given.", show_default=False
        ),
    ] = None,
) -> Arguments:
    """Move a partition to another worker, while it is read and written."""
    return part_name, dest, src


@_command(Client.rebalance)
def rebalance(
    relation: Relation,
    by: Annotated[Measure, typer.Option(help="What is to be even.")] = Measure.NUMBER,
) -> Arguments:
    """Spread the partitions of a table evenly, by the fewest moves."""
    return relation, by.value


@_command(Client.create_replica)
def create_replica(
    part_name: PartName,
    dest: NodeId,
) -> Arguments:
    """Make a further copy of a partition on a worker."""
    return part_name, dest


@_command(Client.rm_replica)
def rm_replica(
    part_name: PartName,
    node_id: NodeId,
) -> Arguments:
    """Drop the replica of a partition on a worker."""
    return part_name, node_id


@_command(Client.switch_primary)
def switch_primary(
    part_name: PartName,
    node_id: NodeId,
) -> Arguments:
    """Make a replica the primary, and the primary a replica."""
    return part_name, node_id


@_command(Client.suspend_replicas)
def suspend_replicas(
    src: Annotated[
        int,
        typer.Argument(
            metavar="SRC",
            help="The worker with the primaries.",
            autocompletion=complete.workers,
            show_default=False,
        ),
    ],
    dest: Annotated[
        int,
        typer.Argument(
            metavar="DEST",
            help="The worker with the replicas.",
            autocompletion=complete.workers,
            show_default=False,
        ),
    ],
) -> Arguments:
    """Let commits on one worker wait no more for the replicas on another one."""
    return src, dest


@_command(Client.set_replevel)
def set_replevel(
    relation: Relation,
    replevel: Annotated[
        int,
        typer.Argument(
            min=0, metavar="REPLEVEL", help="Replicas beside the primary.", show_default=False
        ),
    ],
) -> Arguments:
    """Bring every partition of a table to a number of replicas."""
    return relation, replevel


class Switch(StrEnum):
    """What can be on or off."""

    ON = "on"
    OFF = "off"


@_command(Client.set_sync)
def set_sync(
    relation: Relation,
    sync: Annotated[
        Switch,
        typer.Argument(help="on: a commit waits until every replica has it.", show_default=False),
    ],
) -> Arguments:
    """Let commits wait for the replicas of a table, or not."""
    return relation, sync is Switch.ON


@_command(Client.failover)
def failover(
    node_id: NodeId,
    accept_data_loss: Annotated[
        bool,
        typer.Option(
            "--accept-data-loss",
            help="Also promote replicas that may lack acknowledged writes, where nothing else is there.",
        ),
    ] = False,
) -> Arguments:
    """Promote the replicas of a dead worker's partitions now."""
    return node_id, accept_data_loss
