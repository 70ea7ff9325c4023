"""`shardman status`: the page to look at first."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from shardman.cli import output
from shardman.cli.exits import Exit
from shardman.cli.options import Dsn, Json
from shardman.pg import status as cluster_status
from shardman.pg.status import NodeStatus, Shardlord, Status

app = typer.Typer()


@app.command(rich_help_panel="Look")
def status(
    dsn: Dsn,
    partitions: Annotated[
        bool, typer.Option("--partitions", help="Also where each partition lies.")
    ] = False,
    json: Json = False,
) -> None:
    """Show nodes, tables, running commands, and what is wrong and what to do.

    The exit code is 0 when nothing is wrong, else 3.
    """
    now = cluster_status.read(dsn)
    if json:
        output.print_json({**vars(now), "healthy": now.healthy})
    else:
        _print(now, partitions=partitions)
    raise typer.Exit(Exit.OK if now.healthy else Exit.UNHEALTHY)


def _print(now: Status, *, partitions: bool) -> None:
    console = output.stdout()
    console.print(Text(f"cluster {now.cluster}, shardlord: {_shardlord(now.shardlord)}"))
    console.print(_nodes(now))
    if now.tables:
        console.print(_tables(now))
    else:
        console.print("No sharded tables yet: see shardman create-hash-partitions --help\n")
    if partitions:
        console.print(_partitions(now))
    if now.commands:
        console.print(_commands(now))
    _print_problems(console, now)


def _shardlord(lord: Shardlord | None) -> str:
    if lord is None:
        return "unknown, the lord's database cannot be reached"
    if lord.epoch == 0:
        return "none has ever acted"
    age = output.span(lord.age)
    return f"{lord.holder}, epoch {lord.epoch}, last sign of life {age} ago"


def _nodes(now: Status) -> Any:
    columns = (
        "node", "role", "state", "address", "version", "primaries", "replicas", "size",
        "metadata lag", "WAL kept", "drift",
    )  # fmt: skip
    return output.table(columns, [_node(n) for n in now.nodes])


def _node(node: NodeStatus) -> tuple[Any, ...]:
    return (
        node.id,
        node.role,
        Text("up", "green") if node.up else Text("down", "red"),
        node.address,
        node.version,
        node.primaries,
        node.replicas,
        output.size(node.bytes),
        output.size(node.lag_bytes),
        output.size(node.retained_bytes),
        node.drift,
    )


def _tables(now: Status) -> Any:
    ids = [n.id for n in now.nodes if "worker" in n.role]
    columns = ("table", "by", "partitions", "replicas", "size", "rows (about)")
    rows = [
        (
            t["relation"],
            t["expr"],
            t["partitions_count"],
            _replicas(t["min_replicas"], t["max_replicas"]),
            output.size(t["bytes"]),
            t["rows"],
            *((t["primaries_on"] or {}).get(str(i), 0) for i in ids),
        )
        for t in now.tables
    ]
    return output.table((*columns, *(f"on {i}" for i in ids)), rows)


def _replicas(low: int | None, high: int | None) -> str:
    return str(low or 0) if low == high else f"{low} to {high}"


def _partitions(now: Status) -> Any:
    rows = [
        (
            p["part_name"],
            p["primary_on"],
            ", ".join(map(str, p["replicas_on"])) or None,
            output.size(p["bytes"]),
            p["rows"],
        )
        for p in now.partitions
    ]
    return output.table(("partition", "primary on", "replicas on", "size", "rows (about)"), rows)


def _commands(now: Status) -> Any:
    rows = [
        (
            c["id"],
            f"{c['cmd_type']} {c['opts'] or ''}",
            output.status_text(c["status"]),
            f"{c['step_no'] or 0} of {c['steps_total'] or '?'}" if c["started_at"] else None,
            c["step_name"],
            c["waits_for"],
            output.span(c["duration"]),
        )
        for c in now.commands
    ]
    return output.table(("id", "command", "status", "step", "now", "waits for", "for"), rows)


def _print_problems(console: Console, now: Status) -> None:
    if now.healthy:
        console.print(Text("Nothing is wrong.", "green"))
        return
    console.print(Text(f"What is wrong ({len(now.problems)}):", "bold red"))
    for problem in now.problems:
        console.print(Text(f"  {problem.subject}: {problem.what}", "red"))
        if problem.hint:
            console.print(Text(f"    {problem.hint}"))
