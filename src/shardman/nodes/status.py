"""The state of a cluster, gathered from the status views of all its nodes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any

import psycopg

from shardman.errors import Code, UserError
from shardman.model.finding import Finding
from shardman.model.shapes import Shape
from shardman.nodes.kept import KeptReach
from shardman.nodes.reach import NodeError, NodeRow, Reach
from shardman.nodes.shapes import lasting_differences, shapes_at_once
from shardman.pg.connection import SyncConnection
from shardman.pg.conninfo import address
from shardman.pg.wording import plain
from shardman.sql.loader import queries

Row = dict[str, Any]

#: Partitions that a sentence names.
NAMED = 3
#: Seconds.
COMPARED_EVERY_S = 10.0


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
        full: what did is that it has no connection left.
        lag_bytes: how far its metadata are behind the lord's.
        away_until: until when its absence is planned, see shardman.maintain; None: it is not.
        retained_bytes: WAL kept on it for receivers of ours that are behind.
        waiting: its commits that wait for replicas, see shardman.status_waiting.
        channels: those from it to its replicas, see shardman.status_channels.
        aside: tables that were set aside on it, see shardman.set_aside.
    """

    id: int
    role: str
    address: str
    why: str | None = None
    full: bool = False
    version: str | None = None
    epoch: int | None = None
    primaries: int = 0
    replicas: int = 0
    zone: str | None = None
    away_until: datetime | None = None
    bytes: int | None = None
    lag_bytes: int | None = None
    retained_bytes: int | None = None
    drift: int | None = None
    slots: tuple[Row, ...] = ()
    subscriptions: tuple[Row, ...] = ()
    waiting: Row | None = None
    channels: tuple[Row, ...] = ()
    aside: tuple[Row, ...] = ()
    #: False: its role is no superuser, so a plain ALTER TABLE changes this node only.
    spreads_ddl: bool = True

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
    deadlocks: tuple[Row, ...] = ()
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
    sizes: list[Row]
    problems: list[Row]
    channels: list[Row]
    waiting: list[Row]
    aside: list[Row]
    #: None: they could not be looked at.
    shapes: tuple[Shape, ...] | None
    #: What concerns the whole cluster, where this is the lord.
    told: Mapping[str, list[Row]] | None = None


def read(dsn: str) -> Status:
    """Asks every node at once.

    Raises:
        UserError: the node named by dsn cannot be reached or belongs to no cluster.
    """
    with Reach(dsn) as reach:
        return _look(reach)[0]


class Watch:
    """Reads the status again and again, in the same sessions. To be used by one thread at a time.

    Args:
        dsn: of any node.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._reach: KeptReach | None = None
        self._compared = float("-inf")
        self._apart: list[Finding] = []

    def read(self) -> tuple[Status, KeptReach]:
        """Asks every node at once. How tables look is compared every `COMPARED_EVERY_S` only, for that takes
        longer than all the rest.

        Returns:
            the status, and the sessions in which to ask more until the next time.

        Raises:
            UserError: the node that was named cannot be reached or belongs to no cluster.
        """
        reach = self._followed()
        due = time.monotonic() - self._compared >= COMPARED_EVERY_S
        try:
            now, apart = _look(reach, None if due else self._apart)
        except BaseException:
            self.close()
            raise
        if due:
            self._apart, self._compared = apart, time.monotonic()
        return now, reach

    def _followed(self) -> KeptReach:
        if self._reach is not None:
            try:
                self._reach.follow()
                return self._reach
            except psycopg.Error:
                # Its server was started anew, perhaps: a new session tells.
                pass
            except UserError:
                self.close()
                raise
        self.close()
        self._reach = KeptReach(self._dsn, "shardman web")
        return self._reach

    def close(self) -> None:
        """Ends the sessions; the next look opens new ones."""
        if self._reach is not None:
            self._reach.close()
            self._reach = None


def _look(reach: Reach, apart: list[Finding] | None = None) -> tuple[Status, list[Finding]]:
    """The status, and where tables look different; with ``apart`` that is known, and not looked for."""
    answers = reach.everywhere(
        lambda n, session: _ask(session, lord=n == reach.lord, shaped=apart is None)
    )
    told = _told_by_lord(reach, answers.get(reach.lord))
    if apart is None:
        looked = {n: a.shapes for n, a in answers.items() if isinstance(a, _Answer)}
        apart = [
            *lasting_differences(
                reach,
                {n: found for n, found in looked.items() if found is not None},
                {p["part_name"]: p["primary_on"] for p in told["partitions"]},
            ),
            *(_not_compared(n) for n, found in looked.items() if found is None),
        ]
    return _put_together(reach, answers, told, apart), apart


def _not_compared(node: int) -> Finding:
    return Finding(
        f"tables on node {node}",
        "were not compared with those of the other nodes: somebody has one for himself",
        "Look again when he is done; pg_stat_activity and pg_locks there say who it is",
    )


def _ask(session: SyncConnection, *, lord: bool, shaped: bool) -> _Answer:
    # What an application holds is not waited for: it would look like a server that hangs.
    session.execute(queries("status")["hurry"])
    lists = {f.name: _rows(session, f.name) for f in fields(_Answer) if f.name not in _OTHERWISE}
    return _Answer(
        info=_rows(session, "info")[0],
        shapes=shapes_at_once(session) if shaped else (),
        told={n: _rows(session, n) for n in (*_WHOLE, *_OF_LORD)} if lord else None,
        **lists,
    )


def _rows(session: SyncConnection, name: str) -> list[Row]:
    return session.execute(queries("status")[name]).fetchall()


def _told_by_lord(reach: Reach, lord: _Answer | NodeError | None) -> Mapping[str, list[Row]]:
    """What concerns the whole cluster; from this node when the lord cannot be reached."""
    if isinstance(lord, _Answer) and lord.told is not None:
        return lord.told
    return {n: _rows(reach.here, n) for n in _WHOLE}


_OTHERWISE = ("info", "shapes", "told")
_WHOLE = ("nodes", "tables", "partitions", "commands", "failovers")
_OF_LORD = ("shardlord", "comparisons", "deadlocks")


def _put_together(
    reach: Reach,
    answers: Mapping[int, _Answer | NodeError],
    told: Mapping[str, list[Row]],
    apart: list[Finding],
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
        partitions=_partitions(told["partitions"], sizes, told.get("comparisons", [])),
        commands=tuple(told["commands"]),
        failovers=tuple(told["failovers"]),
        deadlocks=tuple(told.get("deadlocks", ())),
        problems=(
            # What is down first, and what that means: most of the rest may follow from it.
            *_down(answers, _planned(counts)),
            *_out_of_reach(answers, told, _planned(counts)),
            *_problems(answers, reach.lord),
            *apart,
        ),
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
    if counts.get("away_until"):
        role += ", in maintenance"
    known = {
        "id": node.id,
        "role": role,
        "address": address(node.options) if node.options else node.connstring,
        "primaries": counts.get("primaries", 0),
        "replicas": counts.get("replicas", 0),
        "zone": counts.get("zone"),
        "away_until": counts.get("away_until"),
        "lag_bytes": lag,
    }
    if isinstance(answer, NodeError):
        full = answer.code is Code.SERVER_FULL
        return NodeStatus(**known, why=answer.problem, full=full)
    return NodeStatus(
        **known,
        version=answer.info["version"],
        epoch=answer.info["epoch"],
        bytes=sum(p["bytes"] or 0 for p in answer.sizes),
        retained_bytes=max((s["retained_bytes"] or 0 for s in answer.slots), default=0),
        drift=answer.info["drift"],
        slots=tuple(answer.slots),
        subscriptions=tuple(answer.subscriptions),
        waiting=answer.waiting[0],
        channels=tuple(answer.channels),
        aside=tuple(answer.aside),
        spreads_ddl=answer.info["spreads_ddl"],
    )


#: What the node of a partition's primary says of it: bytes, estimated rows, and rows that were written and read
#: since its server began to count.
_OF_PRIMARIES = ("bytes", "rows", "written", "read")


def _sizes(answers: Mapping[int, _Answer | NodeError]) -> dict[str, Row]:
    """Of each partition's primary, as its node says."""
    return {
        p["part_name"]: {name: p[name] for name in _OF_PRIMARIES}
        for answer in answers.values()
        if isinstance(answer, _Answer)
        for p in answer.sizes
        if p["here"] == "primary"
    }


def _partitions(
    partitions: Iterable[Row], sizes: Mapping[str, Row], comparisons: list[Row]
) -> tuple[Row, ...]:
    """With sizes, and the last comparison of each replica by its node."""
    compared: dict[str, dict[int, Row]] = {}
    for row in comparisons:
        compared.setdefault(row["part_name"], {})[row["node"]] = row
    return tuple(
        p
        | sizes.get(p["part_name"], dict.fromkeys(_OF_PRIMARIES))
        | {"compared": compared.get(p["part_name"], {})}
        for p in partitions
    )


def _with_size(table: Row, sizes: Mapping[str, Row]) -> Row:
    parts = table.pop("parts")
    known = [sizes[p] for p in parts if p in sizes]
    rows = [s["rows"] for s in known if s["rows"] is not None]
    return table | {
        "bytes": sum(s["bytes"] or 0 for s in known),
        "rows": sum(rows) if len(rows) == len(parts) else None,
    }


def _planned(counts: Mapping[int, Row]) -> set[int]:
    """The nodes that may be away: that they are is not wrong."""
    return {node for node, row in counts.items() if row.get("away_until")}


def _down(
    answers: Mapping[int, _Answer | NodeError], planned: Collection[int]
) -> Iterable[Finding]:
    return (a.finding for n, a in answers.items() if isinstance(a, NodeError) and n not in planned)


def _problems(answers: Mapping[int, _Answer | NodeError], lord: int) -> Iterable[Finding]:
    yield from _other_schemas(answers, lord)
    for node, answer in answers.items():
        for row in () if isinstance(answer, NodeError) else answer.problems:
            where = "" if row["whole"] else f" on node {node}"
            yield Finding(row["subject"] + where, row["problem"], row["hint"])


def _out_of_reach(
    answers: Mapping[int, _Answer | NodeError],
    told: Mapping[str, list[Row]],
    planned: Collection[int],
) -> Iterable[Finding]:
    """The worst that follows from a node that is away, unless replicas take over: rows that nobody reaches."""
    away = {n for n, a in answers.items() if isinstance(a, NodeError)}
    waited_for = {t["relation"] for t in told["tables"] if t["sync"]}
    lost: dict[int, list[str]] = {}
    taken: Counter[int] = Counter()
    for part in told["partitions"]:
        node = part["primary_on"]
        if node not in away - set(planned):
            continue
        follow = set(part["replicas_on"]) - set(part["stale_on"] or ()) - away
        if follow and part["relation"] in waited_for:
            taken[node] += 1
        else:
            lost.setdefault(node, []).append(part["part_name"])
    for node, parts in sorted(lost.items()):
        named = ", ".join(parts[:NAMED]) + (", …" if len(parts) > NAMED else "")
        others = f"; those of {taken[node]} more until replicas take over" if taken[node] else ""
        yield Finding(
            f"rows on node {node}",
            f"nobody reaches those of {len(parts)} partitions that no replica takes over ({named}){others}",
            f"Bring node {node} back; see docs/commands/failover.md where it is lost",
        )


def _other_schemas(answers: Mapping[int, _Answer | NodeError], lord: int) -> Iterable[Finding]:
    told = answers.get(lord)
    for node, answer in answers.items():
        if isinstance(answer, NodeError) or isinstance(told, NodeError) or told is None:
            continue
        if answer.info["schema"] != told.info["schema"]:
            yield Finding(
                f"node {node}",
                "has the schema of another version than the lord",
                "The shardlord brings it up to date; if it stays so, its log says what is in the way",
            )


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
