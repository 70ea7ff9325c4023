"""Asks nodes what their tables and copies look like."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import psycopg
from psycopg.rows import tuple_row

from shardman.errors import UserError
from shardman.model.finding import Finding
from shardman.model.shapes import Shape, differences
from shardman.nodes.reach import NodeError, Reach
from shardman.pg.connection import SyncConnection
from shardman.sql.loader import queries

#: A statement that `shardman exec` runs is on one node a moment sooner than on the next.
_AGAIN_S = 0.3


def shapes(session: SyncConnection) -> tuple[Shape, ...]:
    """What one node says of itself."""
    with session.cursor(row_factory=tuple_row) as cur:
        return tuple(
            Shape(relation, kind, aspect, tuple(items), tuple(names))
            for relation, kind, aspect, items, names in cur.execute(queries("reach")["shapes"])
        )


def shapes_at_once(session: SyncConnection) -> tuple[Shape, ...] | None:
    """The same; None while somebody has a table for himself, who is not waited for."""
    session.execute(queries("status")["hurry"])
    try:
        return shapes(session)
    except psycopg.errors.LockNotAvailable:
        return None


def lasting_differences(
    reach: Reach, first: Mapping[int, Sequence[Shape]], primaries: Mapping[str, int]
) -> list[Finding]:
    """Differences that are there at a second look too.

    Args:
        first: what the nodes said at the first look.
        primaries: the node of each partition's primary.
    """
    found = list(differences(first, primaries))
    if not found:
        return []
    time.sleep(_AGAIN_S)
    busy = _busy(reach)
    answers = reach.everywhere(lambda _, session: shapes_at_once(session), first)
    again = {n: a for n, a in answers.items() if a is not None and not isinstance(a, NodeError)}
    still = set(differences(again, primaries, busy))
    return [finding for finding in found if finding in still]


def _busy(reach: Reach) -> frozenset[str]:
    """What running commands change."""
    try:
        with reach.open(reach.lord) as lord:
            rows = lord.execute(queries("invariants")["busy"]).fetchall()
    except (UserError, psycopg.Error):
        rows = reach.here.execute(queries("invariants")["busy"]).fetchall()
    return frozenset(r["name"] for r in rows)
