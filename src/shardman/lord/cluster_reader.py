"""Reads the metadata into one consistent `Cluster`."""

from __future__ import annotations

from psycopg.rows import dict_row

from shardman.model.cluster import Cluster
from shardman.sql.loader import queries
from shardman.steps.base import Connection


async def read_cluster(conn: Connection) -> Cluster:
    """Everything the lord knows, of one snapshot.

    Args:
        conn: an autocommit session on the lord's database.
    """
    sql = queries("cluster")
    async with conn.transaction(), conn.cursor(row_factory=dict_row) as cur:
        await cur.execute("set transaction isolation level repeatable read, read only")
        local, nodes, tables, copies = [
            await (await cur.execute(sql[name])).fetchall()
            for name in ("local", "nodes", "tables", "copies")
        ]
    return Cluster.of_rows(local[0]["cluster"], nodes, tables, copies)
