"""Compares the copies of shared tables: what they look like, and on demand their rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import psycopg

from shardman.model.cluster import Cluster, Shared
from shardman.model.finding import Finding
from shardman.nodes.reach import NodeError, Reach
from shardman.pg.connection import SyncConnection
from shardman.pg.wording import plain

#: How long a writer to the table is waited for.
_LOCK = "set lock_timeout = '3s'"
_SHAPE = "select shardman.shared_shape(%s) as found"
_CONTENT = "select (c).rows || ' rows, ' || (c).hash as found from (select shardman.content_hash(%s) as c) as x"


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
        sessions: dict[int, SyncConnection] = {}
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
        for what, query in (("looks different", _SHAPE), ("has other rows", _CONTENT))[: 1 + data]:
            found = {n: _one(s, query, table.relation) for n, s in sessions.items()}
            if None in found.values():
                return  # The node itself says that it is missing.
            first = next(iter(found), 0)
            for node, seen in found.items():
                if seen != found[first]:
                    yield Finding(
                        f"{table.relation} on node {node}",
                        f"the copy of the shared table {what} than that on node {first}",
                        f"shardman create-shared-table '{table.relation}' NODE makes all like that of NODE",
                    )


def _one(session: SyncConnection, query: str, relation: str) -> str | None:
    row = session.execute(query.encode(), (relation,)).fetchone()
    return None if row is None or row["found"] is None else str(row["found"])
