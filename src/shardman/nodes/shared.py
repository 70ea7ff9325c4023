"""Compares the copies of shared tables: what they look like, and on demand their rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
from psycopg.rows import tuple_row

from shardman.model.cluster import Cluster, Shared
from shardman.model.finding import Finding
from shardman.nodes.reach import NodeError, Reach
from shardman.pg.comparison import BUCKETS, Content, differing_keys
from shardman.pg.connection import SyncConnection
from shardman.pg.wording import plain

#: How long a writer to the table is waited for.
_LOCK = "set lock_timeout = '3s'"
_SHAPE = "select shardman.shared_shape(%s)"
_CONTENT = "select bucket, rows, hash from shardman.content_buckets(%s, %s)"
_ROWS = "select key, hash from shardman.shared_rows(%s, %s, %s, %s)"
#: So many keys of rows that differ are named, of so many rows that are looked at.
_NAMED, _MOST = 10, 10_000

Params = tuple[object, ...]
Sessions = dict[int, SyncConnection]


def shared_differences(
    reach: Reach, cluster: Cluster, busy: frozenset[str], *, data: bool = False
) -> Iterator[Finding]:
    """Copies that differ from the first one that answers; nodes that do not answer are left out.

    Args:
        busy: what running commands change.
        data: compare the rows; writers wait meanwhile.
    """
    for table in cluster.shared_in_order:
        if table.relation not in busy:
            try:
                yield from _compare(reach, table, data)
            except psycopg.Error as error:
                yield Finding(
                    table.relation,
                    f"its copies could not be compared: {plain(error)}",
                    "Check again when that has ended",
                )


def _compare(reach: Reach, table: Shared, data: bool) -> Iterator[Finding]:
    with ExitStack() as stack:
        sessions: Sessions = {}
        for node in table.nodes:
            try:
                sessions[node] = stack.enter_context(reach.open(node))
            except NodeError:
                continue
            if data:
                # In the order of writers: who has committed on the first node does so on all others.
                sessions[node].execute(_LOCK)
                stack.enter_context(sessions[node].transaction())
                for kind in ("turn", "work") if len(sessions) == 1 else ("work",):
                    sessions[node].execute(
                        "select shardman.take_shared_lock(%s, %s)", (table.relation, kind)
                    )
        shapes = {n: _one(s, _SHAPE, table.relation) for n, s in sessions.items()}
        if not shapes or None in shapes.values():
            return  # The node itself says that it is missing.
        first, *others = shapes
        for node in others:
            if shapes[node] != shapes[first]:
                yield _finding(table, node, first, "looks different", "")
        if data:
            yield from _compare_rows(table, sessions, first, others)


def _compare_rows(
    table: Shared, sessions: Sessions, first: int, others: list[int]
) -> Iterator[Finding]:
    here = _content(sessions[first], table.relation)
    for node in others:
        there = _content(sessions[node], table.relation)
        if here == there:
            continue
        wanted = (table.relation, BUCKETS, here.differing_buckets(there), _MOST)
        found = [_rows(sessions[n], wanted) for n in (first, node)]
        yield _finding(table, node, first, "has other rows", _named(differing_keys(*found)))


def _finding(table: Shared, node: int, first: int, what: str, which: str) -> Finding:
    return Finding(
        f"{table.relation} on node {node}",
        f"the copy of the shared table {what} than that on node {first}{which}",
        f"shardman create-shared-table '{table.relation}' NODE makes all like that of NODE",
    )


def _named(keys: list[str]) -> str:
    """The keys of rows that differ, as a part of a sentence."""
    if not keys or len(keys) >= _MOST:
        return ""
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return f" for the keys {', '.join(keys[:_NAMED])}{more}"


def _content(session: SyncConnection, relation: str) -> Content:
    rows = _all(session, _CONTENT, (relation, BUCKETS))
    return Content({int(b): (int(count), str(hash_)) for b, count, hash_ in rows})


def _rows(session: SyncConnection, wanted: Params) -> dict[str, str]:
    """The hashes of rows, by their keys."""
    return {str(key): str(hash_) for key, hash_ in _all(session, _ROWS, wanted)}


def _all(session: SyncConnection, query: str, params: Params) -> list[tuple[str, ...]]:
    with session.cursor(row_factory=tuple_row) as cur:
        return cur.execute(query.encode(), params).fetchall()


def _one(session: SyncConnection, query: str, relation: str) -> str | None:
    ((found,),) = _all(session, query, (relation,))
    return found
