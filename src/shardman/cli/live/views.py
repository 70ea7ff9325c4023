"""The pages of `shardman top`, as tables that fit into 80 columns. Asks nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from shardman import units
from shardman.cli import output
from shardman.cli.live.picture import Picture

Cell = Text | str | None

#: What its values may be old before a node is marked, in seconds.
OLD_S = 6.0


def header(picture: Picture, *, paused: bool = False) -> Text:
    """One line: whether all is well."""
    nodes = picture.label("node_up", "node")
    up = picture.total("node_up") or 0
    acting = picture.value("shardlord_acting")
    running = sum(c["status"] == "in progress" for c in picture.commands or ())
    line = Text(" PAUSED " if paused else " shardman ", "reverse")
    line.append(f" nodes {up:.0f}/{len(nodes)}", "green" if up == len(nodes) else "bold red")
    line.append("  shardlord ").append(
        *{None: ("?", "yellow"), 1.0: ("acts", "green")}.get(acting, ("MISSING", "bold red"))
    )
    line.append(f"  commands {running}", "cyan" if running else "")
    line.append(f"  {_number(picture.rate('node_transactions', outcome='committed'))} tx/s")
    return line.append("  ").append_text(_wrong(picture))


def _wrong(picture: Picture) -> Text:
    if picture.wrong is not None:
        return Text("status: unknown", "yellow")
    if picture.status is None:
        return Text("…")
    number = len(picture.status.problems)
    return Text(f"{number} wrong (w)", "bold red") if number else Text("nothing wrong", "green")


def nodes(picture: Picture) -> RenderableType:
    """Each node: whether it answers, what it holds, what it does, who lags."""
    rows = [_node(picture, node) for node in picture.label("node_up", "node")]
    return _table(
        ("node", "role", "state", "zone", ">prim", ">repl", ">sess", ">tx/s", ">rows/s", ">lag", ">kept"),
        rows,
    )  # fmt: skip


def _node(picture: Picture, node: str) -> Sequence[Cell]:
    zone = picture.label("node_zone", "zone", node=node)
    role = picture.label("node", "role", node=node)
    stale = picture.value("node_copies", node=node, copy="stale")
    replicas = _number(picture.value("node_copies", node=node, copy="replica"))
    lag = picture.most("channel_lag_seconds", to_node=node)
    waiting = picture.value("node_commits_waiting", node=node)
    return (
        node,
        {"lord, worker": "both"}.get(role[0], role[0]) if role else "",
        _state(picture, node),
        zone[0] if zone else "",
        _number(picture.value("node_copies", node=node, copy="primary")),
        Text(f"{replicas}+{stale:.0f}", "yellow") if stale else replicas,
        _number(picture.total("node_sessions", node=node)),
        _number(picture.rate("node_transactions", node=node)),
        _number(_written(picture, "node_rows", node=node)),
        Text(f"wait {waiting:.0f}", "yellow") if waiting else _seconds(lag),
        _size(picture.most("slot_retained_bytes", node=node)),
    )


def _state(picture: Picture, node: str) -> Text:
    age = picture.value("node_age_seconds", node=node)
    if picture.value("node_up", node=node) != 1:
        planned = picture.value("node_in_maintenance", node=node)
        since = "" if age is None else f" {_seconds(age)}"
        return Text(f"away{since}", "yellow") if planned else Text(f"down{since}", "bold red")
    if age is not None and age > OLD_S:
        return Text(f"slow {_seconds(age)}", "yellow")
    if picture.value("node_draining", node=node):
        return Text("draining", "cyan")
    return Text("up", "green")


def tables(picture: Picture) -> RenderableType:
    """Each table: its copies, size, and what is done to it; the busiest first."""
    names = picture.label("table_partitions", "table")
    busy = {t: _written(picture, "table_rows", table=t) or 0.0 for t in names}
    rows = [_of_table(picture, t) for t in sorted(names, key=lambda t: (-busy[t], t))]
    return _table(
        ("table", ">parts", ">replicas", ">below", ">stale", ">size", ">writes/s", ">reads/s"), rows
    )


def _of_table(picture: Picture, table: str) -> Sequence[Cell]:
    below = picture.value("table_partitions_below_level", table=table)
    stale = picture.value("table_replicas_stale", table=table)
    return (
        table,
        _number(picture.value("table_partitions", table=table)),
        _number(picture.value("table_replicas_wanted", table=table)),
        Text(f"{below:.0f}", "bold red") if below else "",
        Text(f"{stale:.0f}", "yellow") if stale else "",
        _size(picture.total("table_bytes", table=table, copy="primary")),
        _number(_written(picture, "table_rows", table=table)),
        _number(picture.rate("table_rows", table=table, operation="read")),
    )


def partitions(picture: Picture) -> RenderableType:
    """Where each partition lies, how large and how busy it is; the busiest and largest first."""
    where = {p["part_name"]: p for p in (picture.status.partitions if picture.status else ())}
    sums: dict[str, list[float]] = {}
    for (name, labels), rate in picture.rates.items():
        if name == "partition_rows":
            of = dict(labels)
            sums.setdefault(of["partition"], [0.0, 0.0])[of["operation"] == "read"] += rate
    sizes = {
        dict(labels)["partition"]: (value, dict(labels)["node"])
        for (name, labels), value in picture.values.items()
        if name == "partition_bytes" and ("copy", "primary") in labels
    }
    order = sorted(sizes, key=lambda p: (-sum(sums.get(p, [0.0])), -sizes[p][0], len(p), p))
    rows = [
        (
            name,
            sizes[name][1],
            _replicas(where.get(name)),
            _size(sizes[name][0]),
            _number(sums[name][0]) if name in sums else "",
            _number(sums[name][1]) if name in sums else "",
        )
        for name in order
    ]
    return _table(("partition", ">on", "replicas on", ">size", ">writes/s", ">reads/s"), rows)


def _replicas(partition: Mapping[str, Any] | None) -> Text:
    made = Text()
    for node in partition["replicas_on"] if partition else ():
        stale = node in partition["stale_on"] if partition else False
        made.append(f"{' ' if made else ''}{node}{'!' if stale else ''}", "yellow" if stale else "")
    return made


def commands(picture: Picture) -> RenderableType:
    """What waits and runs, and what ended last."""
    if picture.commands is None:
        return Text("The lord does not answer: what runs is not known.", "yellow")
    rows = [_command(c) for c in picture.commands]
    return _table(("id", "command", "status", ">step", ">done", ">left", ">for", "now"), rows)


def _command(c: Mapping[str, Any]) -> Sequence[Cell]:
    under_way = c["status"] in ("waiting", "in progress")
    share = _share(c) if under_way else None
    waits = c["waits_for"] if under_way else c["error"] or c["result"]
    return (
        str(c["id"]),
        f"{c['cmd_type']} {c['opts'] or ''}",
        output.status_text(c["status"]),
        f"{c['step_no'] or 0}/{c['steps_total'] or '?'}" if c["started_at"] and under_way else "",
        "" if share is None else f"{share:.0%}",
        _left(c["duration"], share),
        units.span(c["duration"]),
        f"waits for {waits}" if under_way and waits else (c["step_name"] if under_way else waits),
    )


def _share(c: Mapping[str, Any]) -> float | None:
    """Of its bytes."""
    return min(1.0, (c["bytes_done"] or 0) / c["bytes_total"]) if c["bytes_total"] else None


def _left(duration: timedelta | None, share: float | None) -> str | None:
    if duration is None or not share or share >= 1:
        return None
    return units.span(duration * (1 - share) / share)


def wrong(picture: Picture) -> RenderableType:
    """What is wrong, and what to do."""
    said: list[RenderableType] = []
    if picture.wrong is not None:
        said.append(Text(f"What is below may be old: {picture.wrong}", "yellow"))
    if picture.status is None:
        return Group(*said, Text("Not known yet."))
    for problem in picture.status.problems:
        said.append(Text(f"{problem.subject}: {problem.what}", "red"))
        if problem.hint:
            said.append(Text(f"  {problem.hint}"))
    for failover in picture.status.failovers:
        at = units.moment(failover["detected_at"])
        said.append(
            Text(f"{at}  {failover['cmd_type']} of node {failover['node']}: {failover['reason']}")
        )
    return Group(*said) if said else Text("Nothing is wrong.", "green")


#: By key, with the page's name.
PAGES: Mapping[str, tuple[str, Callable[[Picture], RenderableType]]] = {
    "n": ("Nodes", nodes),
    "t": ("Tables", tables),
    "p": ("Partitions", partitions),
    "c": ("Commands", commands),
    "w": ("Wrong", wrong),
}


def _written(picture: Picture, name: str, **labels: str) -> float | None:
    rates = [picture.rate(name, operation=o, **labels) for o in ("inserted", "updated", "deleted")]
    known = [r for r in rates if r is not None]
    return sum(known) if known else None


def _table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Table:
    """With one space between columns; > before a name: to the right. What is too long is cut."""
    made = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for name in columns:
        right = name.startswith(">")
        # Rich shortens columns that may wrap before others: names and sentences give way to numbers.
        made.add_column(
            Text(name.removeprefix(">")), justify="right" if right else "left", no_wrap=right
        )
    for row in rows:
        made.add_row(*(_cell(cell) for cell in row))
    return made


def _cell(cell: Cell) -> Text:
    text = cell.copy() if isinstance(cell, Text) else Text((cell or "").replace("\n", " "))
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _number(value: float | None) -> str:
    """At most five characters."""
    if value is None:
        return ""
    for unit in ("", "k", "M", "G"):
        if abs(value) < 1000 or unit == "G":
            return f"{value:.1f}{unit}" if unit and value < 100 else f"{value:.0f}{unit}"
        value /= 1000
    return ""


def _seconds(value: float | None) -> str:
    return "" if value is None else units.span(timedelta(seconds=value)) or ""


def _size(value: float | None) -> str:
    return "" if value is None else units.size(int(value)) or ""
