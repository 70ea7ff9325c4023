"""The cluster's metadata, read on one node in one statement."""

from __future__ import annotations

from psycopg.rows import args_row

from shardman.model.cluster import Cluster
from shardman.pg.connection import Connection, SyncConnection
from shardman.sql.loader import queries


async def read_cluster(conn: Connection) -> Cluster:
    """The metadata at one instant, as this node knows it."""
    async with conn.cursor(row_factory=args_row(Cluster.of_rows)) as cur:
        await cur.execute(queries("cluster")["whole"])
        return _only(await cur.fetchone())


def read_cluster_sync(conn: SyncConnection) -> Cluster:
    """The same without asyncio."""
    with conn.cursor(row_factory=args_row(Cluster.of_rows)) as cur:
        return _only(cur.execute(queries("cluster")["whole"]).fetchone())


def _only(found: Cluster | None) -> Cluster:
    assert found is not None
    return found
