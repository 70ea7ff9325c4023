"""Reads all rows, while everybody writes: what `shardman check --data` does.

Of each partition: the copies are equal, every row lies where it belongs, and each node finds through its
routes as many rows as there are. All sessions see one partition at one instant (`shardman.pg.comparison`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import psycopg
from psycopg import sql

from shardman import names
from shardman.errors import UserError
from shardman.model.cluster import Cluster
from shardman.model.finding import Finding
from shardman.nodes.reach import NodeError, Reach
from shardman.pg.comparison import Changed, Content, Copies, Unsettled, content
from shardman.pg.connection import Connection
from shardman.pg.metadata import read_cluster_sync
from shardman.pg.wording import plain
from shardman.tasks import all_of

#: So many partitions are read at the same time, and so many sessions are opened on each node.
AT_ONCE = 3
#: How long it is tried to see the copies of a partition at one instant, in seconds.
PATIENCE_S = 8.0
#: What cannot be read for so long is reported.
UNREADABLE_S = 1.0
_PAUSE_S = 0.1


@dataclass(frozen=True)
class _Seen:
    """What was found of one partition.

    Args:
        primary: what the primary consists of, and how many of its rows belong elsewhere.
        replicas: what they consist of, by node.
        counts: rows that each node finds through its route.
    """

    primary: Content
    misplaced: int
    replicas: dict[int, Content]
    counts: dict[int, int]


def check_data(reach: Reach) -> list[Finding]:
    """All that is wrong with the rows; nodes that do not answer are left out."""
    return asyncio.run(_check(reach))


async def _check(reach: Reach) -> list[Finding]:
    cluster = await asyncio.to_thread(_metadata, reach)
    waiting = sorted(cluster.primaries)
    found: list[Finding] = []

    async def work() -> None:
        async with AsyncExitStack() as stack:
            sessions = _Sessions(reach, stack)
            while waiting:
                found.extend(await _partition(reach, sessions, waiting.pop(0)))

    await all_of(*(work() for _ in range(min(AT_ONCE, len(waiting)))))
    return sorted(found, key=lambda f: f.subject)


def _metadata(reach: Reach) -> Cluster:
    """The lord's; this node's when the lord cannot be reached."""
    try:
        with reach.open(reach.lord) as lord:
            return read_cluster_sync(lord)
    except (UserError, psycopg.Error):
        return read_cluster_sync(reach.here)


class _Sessions:
    """Sessions of one who compares, opened when they are needed."""

    def __init__(self, reach: Reach, stack: AsyncExitStack) -> None:
        self._reach = reach
        self._stack = stack
        self._opened: dict[tuple[str, int], Connection | None] = {}

    async def get(self, purpose: str, node: int) -> Connection | None:
        """None where the node does not answer, now or before."""
        known = self._opened.get((purpose, node))
        if (purpose, node) not in self._opened or (known is not None and known.closed):
            try:
                conn = await self._reach.open_async(node)
                self._opened[purpose, node] = await self._stack.enter_async_context(conn)
            except NodeError:
                self._opened[purpose, node] = None
        return self._opened[purpose, node]


async def _partition(reach: Reach, sessions: _Sessions, part: str) -> list[Finding]:
    """What is wrong with one, at two looks."""
    until = time.monotonic() + PATIENCE_S
    before: list[Finding] = []
    while True:
        cluster = await asyncio.to_thread(_metadata, reach)
        if part not in cluster.primaries:
            return []
        try:
            found = await _look(reach, sessions, cluster, part)
        except (Unsettled, Changed) as error:
            if time.monotonic() > until:
                return [_unseen(cluster, part, error)]
        except psycopg.Error as error:
            if time.monotonic() > until - PATIENCE_S + UNREADABLE_S:
                return [
                    Finding(part, f"its rows cannot be read: {plain(error)}", "See shardman status")
                ]
        else:
            if not found or [f.subject for f in found] == [f.subject for f in before]:
                return found
            before = found
        await asyncio.sleep(_PAUSE_S)


async def _look(reach: Reach, sessions: _Sessions, cluster: Cluster, part: str) -> list[Finding]:
    owner = cluster.primary(part).owner
    holder, primary = await sessions.get("hold", owner), await sessions.get("read", owner)
    if holder is None or primary is None:
        return []
    through = {
        n.id: conn
        for n in reach.members
        if n.id != owner and (conn := await sessions.get("read", n.id)) is not None
    }
    follow = {r: through[r] for r in cluster.replicas_of(part) if r in through}
    channels = {names.channel(cluster.id, owner, r): conn for r, conn in follow.items()}
    copies = Copies(part, holder, primary, channels, [*through.values()])
    try:
        await copies.at_one_instant()
        seen = await _read(copies, follow, through)
    finally:
        await copies.rollback()
    return list(_judge(cluster, part, seen))


async def _read(
    copies: Copies, follow: dict[int, Connection], through: dict[int, Connection]
) -> _Seen:
    async def elsewhere(node: int, conn: Connection) -> tuple[int, Content | None, int]:
        count = sql.SQL("select count(*) from {}").format(copies.table)
        rows = await _number(conn, count)
        return node, await content(conn, copies.part) if node in follow else None, rows

    async def here() -> tuple[int, Content | None, int]:
        query = sql.SQL("select shardman.misplaced_rows({})").format(sql.Literal(copies.part))
        misplaced = await _number(copies.primary, query)
        return -1, await content(copies.primary, copies.part), misplaced

    (_, primary, misplaced), *others = await all_of(
        here(), *(elsewhere(n, c) for n, c in through.items())
    )
    assert primary is not None
    return _Seen(
        primary,
        misplaced,
        {node: found for node, found, _ in others if found is not None},
        {node: rows for node, _, rows in others},
    )


async def _number(conn: Connection, query: sql.Composed) -> int:
    row = await (await conn.execute(query)).fetchone()
    return int(row[0]) if row else 0


def _judge(cluster: Cluster, part: str, seen: _Seen) -> Iterator[Finding]:
    copy = cluster.primary(part)
    owner, there = copy.owner, seen.primary.rows
    if seen.misplaced:
        yield Finding(
            f"{part} on node {owner}",
            f"{seen.misplaced} rows belong to another partition",
            f"Delete them from {_data(part)} there and insert them into {copy.relation}, in one transaction; "
            f"pg_get_partition_constraintdef of {part} tells which they are",
        )
    for node, rows in seen.counts.items():
        if rows != there:
            yield Finding(
                f"{part} on node {node}",
                f"{rows} rows are found through that node, there are {there}",
                "select shardman.reconcile() on that node; shardman.drift says what is left",
            )
    for node, found in seen.replicas.items():
        if differing := found.differing(seen.primary):
            yield Finding(
                f"{part} on node {node}",
                f"the replica ({found.rows} rows) is not equal to the primary ({there} rows): at least "
                f"{differing} differ",
                f"shardman suspend-replicas {owner} {node} lets it be brought up to date; the scrub does so "
                "when it comes by",
            )


def _unseen(cluster: Cluster, part: str, error: Unsettled | Changed) -> Finding:
    why = f"{error} was in the way" if isinstance(error, Unsettled) else "commands are changing it"
    return Finding(
        f"{part} on node {cluster.primary(part).owner}",
        f"its copies could not be compared: {why}",
        "Check again when that has ended",
    )


def _data(part: str) -> str:
    return part[:-1] + '_data"' if part.endswith('"') else part + "_data"
