"""The cluster's metadata, read on one node."""

from __future__ import annotations

from typing import Any

import psycopg

from shardman.model.cluster import Cluster, Copy, Node, Table
from shardman.pg.reach import Connection
from shardman.sql.loader import queries


def read_cluster(session: Connection) -> Cluster:
    """The metadata at one instant, as this node knows it."""
    named = queries("cluster")
    with session.transaction():
        session.execute("set transaction isolation level repeatable read read only")
        local = _all(session, named["local"])[0]
        nodes = [Node(**row) for row in _all(session, named["nodes"])]
        tables = [Table(**row) for row in _all(session, named["tables"])]
        copies = tuple(Copy(**row) for row in _all(session, named["copies"]))
    return Cluster(
        id=local["cluster"],
        nodes={n.id: n for n in nodes},
        tables={t.relation: t for t in tables},
        copies=copies,
    )


def _all(session: psycopg.Connection[dict[str, Any]], query: Any) -> list[dict[str, Any]]:
    return session.execute(query).fetchall()
