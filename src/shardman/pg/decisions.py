"""Decisions of clients' transactions over several nodes: channels bring them to those who may take over."""

from __future__ import annotations

from psycopg import sql

from shardman.pg import publications, subscriptions
from shardman.pg.connection import Connection

TABLE = sql.Identifier("shardman", "client_decisions")


async def publish(source: Connection, channel: str) -> None:
    """Lets a channel carry what was decided on its source, and nothing that arrived there. Does nothing
    where it does.

    Args:
        channel: the name of its publication.
    """
    cur = await source.execute(
        "select format('^shardman_%%s_[xyz]%%s_', l.cluster, l.node_id), exists (select from pg_publication p"
        " join pg_publication_rel r on r.prpubid = p.oid"
        " where p.pubname = %s and r.prrelid = 'shardman.client_decisions'::regclass)"
        " from shardman.local l",
        (channel,),
    )
    row = await cur.fetchone()
    assert row is not None
    own, there = row
    if not there:
        # On the other side a row has the time when it came there.
        await source.execute(
            sql.SQL(
                "alter publication {} add table only {} (gid, role, parts) where (gid ~ {})"
            ).format(sql.Identifier(channel), TABLE, sql.Literal(own))
        )


async def carry(source: Connection, dest: Connection, guard: Connection, channel: str) -> None:
    """Gives them to a channel that is there already.

    Args:
        guard: one more session on the destination.
    """
    await publish(source, channel)
    await subscriptions.refresh(dest, channel, guard, await publications.carried(source, channel))
