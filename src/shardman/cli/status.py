"""`shardman status`: the page to look at first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from shardman import units
from shardman.cli import output
from shardman.cli.exits import Exit
from shardman.cli.options import Dsn, Json
from shardman.nodes import status as cluster_status
from shardman.nodes.status import NodeStatus, Shardlord, Status

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
    for shown in (_channels(now), _commands(now), _failovers(now), _deadlocks(now), _aside(now)):
        if shown.row_count:
            console.print(shown)
    if any(node.aside for node in now.nodes):
        console.print(
            "Tables set aside: shardman clean drops them when nobody needs what they hold.\n"
        )
    if plain := [str(node.id) for node in now.nodes if not node.spreads_ddl]:
        console.print(
            f"Without a superuser: a plain ALTER TABLE on node {', '.join(plain)} changes that node only;"
            " docs/rights.md says what else is missing.\n"
        )
    _print_problems(console, now)


def _shardlord(lord: Shardlord | None) -> str:
    if lord is None:
        return "unknown, the lord's database cannot be reached"
    if lord.epoch == 0:
        return "none has ever acted"
    if lord.holder is None:
        return "none has acted since this database became the lord's"
    age = units.span(lord.age)
    return f"{lord.holder}, epoch {lord.epoch}, last sign of life {age} ago"


def _nodes(now: Status) -> Any:
    columns = (
        "node", "role", "state", "zone", "address", "version", "primaries", "replicas", "size",
        "metadata lag", "WAL kept", "commits waiting", "drift",
    )  # fmt: skip
    return output.table(columns, [_node(n) for n in now.nodes])


def _node(node: NodeStatus) -> tuple[Any, ...]:
    return (
        node.id,
        node.role,
        _state(node),
        node.zone,
        node.address,
        node.version,
        node.primaries,
        node.replicas,
        units.size(node.bytes),
        units.size(node.lag_bytes),
        units.size(node.retained_bytes),
        _waiting(node),
        node.drift,
    )


def _state(node: NodeStatus) -> Text:
    state = Text("up", "green") if node.up else Text("full" if node.full else "down", "red")
    return state.append(_planned(node), "yellow")


def _planned(node: NodeStatus) -> str:
    """Until when it may be down."""
    if node.away_until is None:
        return ""
    return f", may be away until {node.away_until.astimezone():%H:%M:%S}"


def _waiting(node: NodeStatus) -> str | None:
    if node.waiting is None or not node.waiting["commits"]:
        return None
    return f"{node.waiting['commits']}, up to {units.span(node.waiting['longest'])}"


def _tables(now: Status) -> Any:
    ids = [n.id for n in now.nodes if "worker" in n.role]
    columns = ("table", "by", "partitions", "replicas", "size", "rows (about)")
    rows = [
        (
            t["relation"],
            t["expr"],
            t["partitions_count"],
            _replicas(t),
            units.size(t["bytes"]),
            t["rows"],
            *((t["primaries_on"] or {}).get(str(i), 0) for i in ids),
        )
        for t in now.tables
    ]
    return output.table((*columns, *(f"on {i}" for i in ids)), rows)


def _replicas(t: Mapping[str, Any]) -> str:
    """How many there are of each partition, how many are wanted, and what is wrong with them."""
    low, high, wanted = t["min_replicas"] or 0, t["max_replicas"] or 0, t["replevel"]
    words = [str(low) if low == high else f"{low} to {high}"]
    if wanted != low or wanted != high:
        words.append(f"of {wanted}")
    if t["stale_replicas"]:
        words.append(f"+ {t['stale_replicas']} stale")
    if (high or wanted) and not t["sync"]:
        words.append("asynchronous")
    return " ".join(words)


def _partitions(now: Status) -> Any:
    rows = [
        (
            p["part_name"],
            p["primary_on"],
            ", ".join(f"{n} (stale)" if n in p["stale_on"] else str(n) for n in p["replicas_on"])
            or None,
            units.size(p["bytes"]),
            p["rows"],
            ", ".join(f"{n}: {_compared(c)}" for n, c in p["compared"].items()) or None,
        )
        for p in now.partitions
    ]
    columns = ("partition", "primary on", "replicas on", "size", "rows (about)", "last compared")
    return output.table(columns, rows)


def _compared(comparison: Mapping[str, Any]) -> str:
    """How long ago a replica was compared with its primary, and whether they differed."""
    age = f"{units.span(comparison['age'])} ago"
    return f"{age}, differed" if comparison["differing"] else age


def _commands(now: Status) -> Any:
    rows = [
        (
            c["id"],
            f"{c['cmd_type']} {c['opts'] or ''}",
            output.status_text(c["status"]),
            f"{c['step_no'] or 0} of {c['steps_total'] or '?'}" if c["started_at"] else None,
            c["step_name"],
            c["waits_for"],
            units.span(c["duration"]),
        )
        for c in now.commands
    ]
    return output.table(("id", "command", "status", "step", "now", "waits for", "for"), rows)


def _channels(now: Status) -> Any:
    rows = [
        (
            channel["from_node"],
            channel["to_node"],
            channel["partitions"],
            Text("streams", "green") if channel["streaming"] else Text("down", "red"),
            (channel["sync_state"] or "waited for") if channel["waited_for"] else "no",
            units.size(channel["lag_bytes"]),
            units.span(channel["lag"]),
            units.size(channel["retained_bytes"]),
        )
        for node in now.nodes
        for channel in node.channels
    ]
    columns = ("from", "to", "replicas", "channel", "synchronous", "lag", "lag in time", "WAL kept")
    return output.table(columns, rows)


def _failovers(now: Status) -> Any:
    rows = [
        (
            f["cmd_id"],
            units.moment(f["detected_at"]),
            f["cmd_type"],
            str(f["node"]) if f["to_node"] is None else f"{f['node']} to {f['to_node']}",
            f["reason"],
            output.status_text(f["status"]),
            units.span(f["duration"]),
        )
        for f in now.failovers
    ]
    return output.table(("id", "at", "what", "node", "reason", "status", "took"), rows)


def _deadlocks(now: Status) -> Any:
    rows = [
        (units.moment(d["at"]), d["node"], d["pid"], d["login"], d["application"], d["circle"])
        for d in now.deadlocks
    ]
    return output.table(
        ("deadlock at", "cancelled on", "pid", "login", "application", "circle"), rows
    )


def _aside(now: Status) -> Any:
    rows = [
        (
            node.id,
            f"{a['schema_name']}.{a['table_name']}",
            a["part_name"],
            units.size(a["bytes"]),
            units.moment(a["since"]),
        )
        for node in now.nodes
        for a in node.aside
    ]
    return output.table(("node", "table set aside", "was", "size", "since"), rows)


def _print_problems(console: Console, now: Status) -> None:
    if now.healthy:
        console.print(Text("Nothing is wrong.", "green"))
        return
    console.print(Text(f"What is wrong ({len(now.problems)}):", "bold red"))
    for problem in now.problems:
        console.print(Text(f"  {problem.subject}: {problem.what}", "red"))
        if problem.hint:
            console.print(Text(f"    {problem.hint}"))
