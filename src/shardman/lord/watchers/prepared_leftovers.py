"""Prepared transactions that outlived their command.

A cut-over that fails while a node is just preparing can miss that transaction: the connection is gone, the
server goes on. Its locks would stand for ever, so every visit of a node looks for such ones and ends
them as the metadata decided.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import structlog
from psycopg import sql

from shardman.pg.connection import Connection

log = structlog.get_logger()

#: Younger ones may belong to a command whose end is being written down.
AGE_S = 5


async def end_prepared_leftovers(
    conn: Connection, lord: Connection, cluster_id: str, gids: Iterable[str]
) -> None:
    """Ends this cluster's prepared transactions on a node whose commands have ended.

    Args:
        conn: a session on the node.
        lord: a session on the lord's database.
        gids: transactions there that were prepared more than AGE_S seconds ago.
    """
    for gid in gids:
        found = re.fullmatch(rf"shardman_{cluster_id}_c(\d+)_\d+_\d+", gid)
        verb = await _verdict(lord, int(found[1])) if found else None
        if verb is not None:
            log.warning("leftover prepared transaction", gid=gid, verdict=verb)
            await conn.execute(sql.SQL(f"{verb} prepared {{}}").format(sql.Literal(gid)))


async def _verdict(lord: Connection, cmd_id: int) -> str | None:
    """None while the command may still need its transaction."""
    cur = await lord.execute(
        "select ended_at is not null, switched from shardman.cmd_log where id = %s", (cmd_id,)
    )
    row = await cur.fetchone()
    if row is None or not row[0]:
        return None
    return "commit" if row[1] else "rollback"
