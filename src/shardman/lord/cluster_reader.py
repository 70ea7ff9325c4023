"""Reads the metadata into one consistent `Cluster`."""

from __future__ import annotations

from psycopg.rows import dict_row

from shardman.model.cluster import Cluster, Copy, Node, Table
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
        local = await (await cur.execute(sql["local"])).fetchone()
        nodes = await (await cur.execute(sql["nodes"])).fetchall()
        tables = await (await cur.execute(sql["tables"])).fetchall()
        copies = await (await cur.execute(sql["copies"])).fetchall()
    assert local is not None
    return Cluster(
        id=local["cluster"],
        nodes={n["id"]: Node(**n) for n in nodes},
        tables={t["relation"]: Table(**t) for t in tables},
        copies=tuple(Copy(**c) for c in copies),
    )
