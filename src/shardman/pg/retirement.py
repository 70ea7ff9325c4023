"""What is left to be done in a database that was the lord's."""

from __future__ import annotations

from shardman import names
from shardman.pg import publications, slots, standby_names
from shardman.pg.connection import Connection


async def retire(conn: Connection, cluster: str) -> None:
    """Lets a former lord's database accept no commands, wait for nobody and keep no WAL for nodes that
    follow another one. Safe to repeat.

    Args:
        conn: an autocommit session there with ``synchronous_commit = local``.
    """
    await conn.execute("update shardman.local set lord = false where lord")
    await standby_names.set_metadata_copies(conn, cluster, [])
    prefix = names.meta_publication(cluster)
    for slot in await slots.ls(conn, prefix):
        await slots.drop(conn, slot)
    await publications.drop(conn, prefix)
