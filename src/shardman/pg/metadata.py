"""The cluster's metadata, read on one node."""

from __future__ import annotations

from typing import Any

import psycopg

from shardman.model.cluster import Cluster
from shardman.pg.reach import Connection
from shardman.sql.loader import queries


def read_cluster(session: Connection) -> Cluster:
    """The metadata at one instant, as this node knows it."""
    named = queries("cluster")
    with session.transaction():
        session.execute("set transaction isolation level repeatable read read only")
        local, nodes, tables, copies = (
            _all(session, named[name]) for name in ("local", "nodes", "tables", "copies")
        )
    return Cluster.of_rows(local[0]["cluster"], nodes, tables, copies)


def _all(session: psycopg.Connection[dict[str, Any]], query: Any) -> list[dict[str, Any]]:
    return session.execute(query).fetchall()
