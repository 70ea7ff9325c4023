"""What is left to be done in a database that was the lord's."""

from __future__ import annotations

from typing import Any

from psycopg import AsyncConnection

from shardman import names
from shardman.pg import publications, slots, standbys


async def retire(conn: AsyncConnection[Any], cluster: str) -> None:
    """Lets a former lord's database accept no commands, wait for nobody and keep no WAL for nodes that
    follow another one. Safe to repeat.

    Args:
        conn: an autocommit session there with ``synchronous_commit = local``.
    """
    await conn.execute("update shardman.local set lord = false where lord")
    await standbys.set_copies(conn, cluster, [])
    prefix = names.meta_publication(cluster)
    for slot in await slots.ls(conn, prefix):
        await slots.drop(conn, slot)
    await publications.drop(conn, prefix)
