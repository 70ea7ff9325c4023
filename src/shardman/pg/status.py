"""The state of a cluster, gathered from the status views of all its nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any

import psycopg

from shardman.errors import UserError
from shardman.model.invariants import Finding
from shardman.pg.reach import Connection, NodeError, NodeRow, Reach, address, plain
from shardman.sql.loader import queries

Row = dict[str, Any]


@dataclass(frozen=True)
class Shardlord:
    """Which shardlord acts. ``age``: since its last sign of life."""

    holder: str | None
    epoch: int
    age: timedelta | None
    acting: bool


@dataclass(frozen=True)
class NodeStatus:
    """One member of the cluster.

    Args:
        why: what prevented asking it; None when it answered.
        lag_bytes: how far its metadata are behind the lord's.
        retained_bytes: WAL kept on it for receivers of ours that are behind.
        waiting: its commits that wait for replicas, see shardman.status_waiting.
        links: those from it to its replicas, see shardman.status_links.
        aside: tables that were set aside on it, see shardman.set_aside.
    """

    id: int
    role: str
    address: str
    why: str | None = None
    version: str | None = None
    epoch: int | None = None
    primaries: int = 0
    replicas: int = 0
    zone: str | None = None
    bytes: int | None = None
    lag_bytes: int | None = None
    retained_bytes: int | None = None
    drift: int | None = None
    slots: tuple[Row, ...] = ()
    subscriptions: tuple[Row, ...] = ()
    waiting: Row | None = None
    links: tuple[Row, ...] = ()
    aside: tuple[Row, ...] = ()

    @property
    def up(self) -> bool:
        return self.why is None


@dataclass(frozen=True)
class Status:
    """All of it. ``problems`` is empty when the cluster is healthy."""

    cluster: str
    shardlord: Shardlord | None
    nodes: tuple[NodeStatus, ...]
    tables: tuple[Row, ...]
    partitions: tuple[Row, ...]
    commands: tuple[Row, ...]
    failovers: tuple[Row, ...]
    problems: tuple[Finding, ...] = field(default=())

    @property
    def healthy(self) -> bool:
        return not self.problems


@dataclass(frozen=True)
class _Answer:
    """What one node said of itself."""

    info: Row
    slots: list[Row]
    subscriptions: list[Row]
    partitions: list[Row]
    problems: list[Row]
    links: list[Row]
    waiting: list[Row]
    aside: list[Row]


def read(dsn: str) -> Status:
    """Asks every node at once.

    Raises:
        UserError: the node named by dsn cannot be reached or belongs to no cluster.
    """
    with Reach(dsn) as reach:
        answers = reach.everywhere(lambda _, session: _ask(session))
        told = _told_by_lord(reach)
        return _put_together(reach, answers, told)


def _ask(session: Connection) -> _Answer:
    named = queries("status")

    def rows(name: str) -> list[Row]:
        return session.execute(named[name]).fetchall()

    lists = {f.name: rows(f.name) for f in fields(_Answer) if f.name != "info"}
    return _Answer(info=rows("info")[0], **lists)


def _told_by_lord(reach: Reach) -> dict[str, list[Row]]:
    """What concerns the whole cluster; from this node when the lord cannot be reached."""
    named = queries("status")
    try:
        with reach.open(reach.lord) as lord:
            return {n: lord.execute(named[n]).fetchall() for n in (*_WHOLE, "shardlord")}
    except (UserError, psycopg.Error):
        return {n: reach.here.execute(named[n]).fetchall() for n in _WHOLE}


_WHOLE = ("nodes", "tables", "commands", "failovers")


def _put_together(
    reach: Reach, answers: Mapping[int, _Answer | NodeError], told: Mapping[str, list[Row]]
) -> Status:
    counts = {row["id"]: row for row in told["nodes"]}
    lord = answers.get(reach.lord)
    lags = {
        s["to_node"]: s["lag_bytes"]
        for s in (lord.slots if isinstance(lord, _Answer) else ())
        if s["purpose"] == "metadata"
    }
    sizes = _sizes(answers)
    return Status(
        cluster=reach.cluster,
        shardlord=_shardlord(told.get("shardlord", [])),
        nodes=tuple(
            _node(node, answers[node.id], counts.get(node.id, {}), lags.get(node.id))
            for node in reach.members
        ),
        tables=tuple(_with_size(row, sizes) for row in told["tables"]),
        partitions=_partitions(answers, sizes),
        commands=tuple(told["commands"]),
        failovers=tuple(told["failovers"]),
        problems=tuple(_problems(answers)),
    )


def _shardlord(rows: list[Row]) -> Shardlord | None:
    return Shardlord(**rows[0]) if rows else None


def _node(node: NodeRow, answer: _Answer | NodeError, counts: Row, lag: int | None) -> NodeStatus:
    role = "lord" if node.lord else "worker"
    if node.lord and node.status is not None:
        role = "lord, worker"
    if node.status == "rm_in_progress":
        role += ", being removed"
    if counts.get("draining"):
        role += ", draining"
    known = {
        "id": node.id,
        "role": role,
        "address": address(node.options) if node.options else node.connstring,
        "primaries": counts.get("primaries", 0),
        "replicas": counts.get("replicas", 0),
        "zone": counts.get("zone"),
        "lag_bytes": lag,
    }
    if isinstance(answer, NodeError):
        return NodeStatus(**known, why=answer.problem)
    return NodeStatus(
        **known,
        version=answer.info["version"],
        epoch=answer.info["epoch"],
        bytes=sum(p["bytes"] or 0 for p in answer.partitions),
        retained_bytes=max((s["retained_bytes"] or 0 for s in answer.slots), default=0),
        drift=answer.info["drift"],
        slots=tuple(answer.slots),
        subscriptions=tuple(answer.subscriptions),
        waiting=answer.waiting[0],
        links=tuple(answer.links),
        aside=tuple(answer.aside),
    )


def _sizes(answers: Mapping[int, _Answer | NodeError]) -> dict[str, tuple[int, int | None]]:
    """Bytes and estimated rows of each partition's primary, as its node says."""
    return {
        p["part_name"]: (p["bytes"], p["rows"])
        for answer in answers.values()
        if isinstance(answer, _Answer)
        for p in answer.partitions
        if p["here"] == "primary" and p["bytes"] is not None
    }


def _partitions(
    answers: Mapping[int, _Answer | NodeError], sizes: Mapping[str, tuple[int, int | None]]
) -> tuple[Row, ...]:
    first = next((a for a in answers.values() if isinstance(a, _Answer)), None)
    if first is None:
        return ()
    shown = ("relation", "part_name", "primary_on", "replicas_on", "stale_on")
    return tuple(
        {k: p[k] for k in shown}
        | dict(zip(("bytes", "rows"), sizes.get(p["part_name"], (None, None)), strict=True))
        for p in first.partitions
    )


def _with_size(table: Row, sizes: Mapping[str, tuple[int, int | None]]) -> Row:
    parts = table.pop("parts")
    known = [sizes[p] for p in parts if p in sizes]
    rows = [r for _, r in known if r is not None]
    return table | {
        "bytes": sum(b for b, _ in known),
        "rows": sum(rows) if len(rows) == len(parts) else None,
    }


def _problems(answers: Mapping[int, _Answer | NodeError]) -> Iterable[Finding]:
    # What is down first: most of the rest may follow from it.
    for node, answer in answers.items():
        if isinstance(answer, NodeError):
            yield Finding(f"node {node}", answer.problem, answer.hint)
    for node, answer in answers.items():
        for row in () if isinstance(answer, NodeError) else answer.problems:
            where = "" if row["whole"] else f" on node {node}"
            yield Finding(row["subject"] + where, row["problem"], row["hint"])


def why_waiting(dsn: str) -> str | None:
    """Why a submitted command has not begun, as far as it can be seen; for a progress display."""
    try:
        with Reach(dsn) as reach, reach.open(reach.lord) as lord:
            row = lord.execute(queries("status")["shardlord"]).fetchone()
    except (UserError, psycopg.Error) as error:
        return f"the lord ({error.what if isinstance(error, UserError) else plain(error)})"
    if row is None or not row["acting"]:
        return "a shardlord; none acts, start one with: shardman lord LORD_DSN"
    return None
