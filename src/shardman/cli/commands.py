"""One command for each SQL command: submits it as any user would, and follows it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
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


@app.command(rich_help_panel=_PANEL)
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
    dsn: Dsn,
    zone: Annotated[
        str | None,
        typer.Option(help="What it may fail together with, say a rack.", show_default=False),
    ] = None,
    no_wait: NoWait = False,
    timeout: Timeout = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Add a server to the cluster as a worker."""
    if connstring == "-":
        connstring = sys.stdin.readline().strip()
    _run("add_node", (connstring, zone), dsn, no_wait, timeout, dry_run, json)


@app.command(rich_help_panel=_PANEL)
def set_zone(
    node_id: NodeId,
    dsn: Dsn,
    zone: Annotated[
        str | None,
        typer.Argument(
            metavar="[ZONE]",
            help="What it may fail together with, say a rack; left out: with no other node.",
            show_default=False,
        ),
    ] = None,
    no_wait: NoWait = False,
    timeout: Timeout = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Say what a worker may fail together with: copies go to different zones where they can."""
    _run("set_zone", (node_id, zone), dsn, no_wait, timeout, dry_run, json)


@app.command(rich_help_panel=_PANEL)
def drain_node(
    node_id: NodeId,
    dsn: Dsn,
    end: Annotated[
        bool, typer.Option("--end", help="It may have partitions again.", show_default=False)
    ] = False,
    no_wait: NoWait = False,
    timeout: Timeout = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Move all partitions and replicas off a worker, and place no new ones on it."""
    _run("drain_node", (node_id, not end), dsn, no_wait, timeout, dry_run, json)


@app.command(rich_help_panel=_PANEL)
def rm_node(
    node_id: NodeId,
    dsn: Dsn,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Even if it holds partitions or is dead. Its rows become unreachable."
        ),
    ] = False,
    no_wait: NoWait = False,
    timeout: Timeout = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Remove a worker from the cluster; its data stay on it."""
    _run("rm_node", (node_id, force), dsn, no_wait, timeout, dry_run, json)


@app.command(rich_help_panel=_PANEL)
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
    dsn: Dsn,
    rebalance: Annotated[
        bool, typer.Option(help="Spread the partitions over all workers at once.")
    ] = True,
    no_wait: NoWait = False,
    timeout: Timeout = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Shard a table that lies on one worker, while it is read and written."""
    arguments = (node_id, relation, expr, partitions_count, rebalance)
    _run("create_hash_partitions", arguments, dsn, no_wait, timeout, dry_run, json)


@app.command(rich_help_panel=_PANEL)
def move_part(
    part_name: PartName,
    dest: NodeId,
    dsn: Dsn,
    src: Annotated[
        int | None,
        typer.Option(
            help="Move the copy on this node; the primary's if not given.", show_default=False
        ),
    ] = None,
    no_wait: NoWait = False,
    timeout: Timeout = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Move a partition to another worker, while it is read and written."""
    _run("move_part", (part_name, dest, src), dsn, no_wait, timeout, dry_run, json)


@app.command(rich_help_panel=_PANEL)
def rebalance(
    relation: Relation,
    dsn: Dsn,
    by: Annotated[Measure, typer.Option(help="What is to be even.")] = Measure.NUMBER,
    no_wait: NoWait = False,
    timeout: Timeout = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Spread the partitions of a table evenly, by the fewest moves."""
    _run("rebalance", (relation, by.value), dsn, no_wait, timeout, dry_run, json)


@app.command(rich_help_panel=_PANEL)
def create_replica(
    part_name: PartName,
    dest: NodeId,
    dsn: Dsn,
    no_wait: NoWait = False,
    timeout: Timeout = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Make a further copy of a partition on a worker."""
    _run("create_replica", (part_name, dest), dsn, no_wait, timeout, dry_run, json)


@app.command(rich_help_panel=_PANEL)
def rm_replica(
    part_name: PartName,
    node_id: NodeId,
    dsn: Dsn,
    no_wait: NoWait = False,
    timeout: Timeout = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Drop the replica of a partition on a worker."""
    _run("rm_replica", (part_name, node_id), dsn, no_wait, timeout, dry_run, json)


@app.command(rich_help_panel=_PANEL)
def switch_primary(
    part_name: PartName,
    node_id: NodeId,
    dsn: Dsn,
    no_wait: NoWait = False,
    timeout: Timeout = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Make a replica the primary, and the primary a replica."""
    _run("switch_primary", (part_name, node_id), dsn, no_wait, timeout, dry_run, json)


@app.command(rich_help_panel=_PANEL)
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
    dsn: Dsn,
    no_wait: NoWait = False,
    timeout: Timeout = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Let commits on one worker wait no more for the replicas on another one."""
    _run("suspend_replicas", (src, dest), dsn, no_wait, timeout, dry_run, json)


@app.command(rich_help_panel=_PANEL)
def set_replevel(
    relation: Relation,
    replevel: Annotated[
        int,
        typer.Argument(
            min=0, metavar="REPLEVEL", help="Replicas beside the primary.", show_default=False
        ),
    ],
    dsn: Dsn,
    no_wait: NoWait = False,
    timeout: Timeout = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Bring every partition of a table to a number of replicas."""
    _run("set_replevel", (relation, replevel), dsn, no_wait, timeout, dry_run, json)


class Switch(StrEnum):
    """What can be on or off."""

    ON = "on"
    OFF = "off"


@app.command(rich_help_panel=_PANEL)
def set_sync(
    relation: Relation,
    sync: Annotated[
        Switch,
        typer.Argument(help="on: a commit waits until every replica has it.", show_default=False),
    ],
    dsn: Dsn,
    no_wait: NoWait = False,
    timeout: Timeout = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Let commits wait for the replicas of a table, or not."""
    _run("set_sync", (relation, sync is Switch.ON), dsn, no_wait, timeout, dry_run, json)


@app.command(rich_help_panel=_PANEL)
def failover(
    node_id: NodeId,
    dsn: Dsn,
    accept_data_loss: Annotated[
        bool,
        typer.Option(
            "--accept-data-loss",
            help="Also promote replicas that may lack acknowledged writes, where nothing else is there.",
        ),
    ] = False,
    no_wait: NoWait = False,
    timeout: Timeout = None,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Promote the replicas of a dead worker's partitions now."""
    _run("failover", (node_id, accept_data_loss), dsn, no_wait, timeout, dry_run, json)


def _run(
    name: str,
    arguments: Sequence[Any],
    dsn: str,
    no_wait: bool,
    timeout: float | None,
    dry_run: bool,
    json: bool,
) -> None:
    if dry_run:
        plan.show(dsn, name, arguments, json=json)
        return
    with connect(dsn) as client:
        submitted = _METHODS[name](client, *arguments, wait=False)
    if not no_wait:
        wait.follow(dsn, submitted.id, timeout, json=json)
    elif json:
        output.print_json(submitted)
    else:
        typer.echo(submitted.id)


_METHODS: dict[str, Callable[..., Result]] = {
    "add_node": Client.add_node,
    "rm_node": Client.rm_node,
    "create_hash_partitions": Client.create_hash_partitions,
    "move_part": Client.move_part,
    "rebalance": Client.rebalance,
    "create_replica": Client.create_replica,
    "rm_replica": Client.rm_replica,
    "switch_primary": Client.switch_primary,
    "suspend_replicas": Client.suspend_replicas,
    "set_replevel": Client.set_replevel,
    "set_sync": Client.set_sync,
    "set_zone": Client.set_zone,
    "drain_node": Client.drain_node,
    "failover": Client.failover,
}
