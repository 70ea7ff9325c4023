"""Beats through channels: a row of shardman.beats that its source changes again and again."""

from __future__ import annotations

from psycopg import sql

from shardman.pg import publications, subscriptions
from shardman.pg.connection import Connection

TABLE = sql.Identifier("shardman", "beats")


async def publish(source: Connection, channel: str, src: int) -> None:
    """Lets a channel carry the beats of its source, and no others: those that arrived there are not handed on.
    Does nothing where it does.

    Args:
        channel: the name of its publication.
        src: the source's node id.
    """
    async with source.transaction():
        cur = await source.execute(
            "select r.prattrs is null and pg_get_expr(r.prqual, r.prrelid) = format('(src = %%s)', %s::int)"
            "  from pg_publication p join pg_publication_rel r on r.prpubid = p.oid"
            " where p.pubname = %s and r.prrelid = 'shardman.beats'::regclass",
            (src, channel),
        )
        row = await cur.fetchone()
        if row is not None and row[0]:
            return
        if row is not None:
            await publications.remove(source, channel, TABLE)
        await source.execute(
            sql.SQL("alter publication {} add table only {} where (src = {})").format(
                sql.Identifier(channel), TABLE, sql.Literal(src)
            )
        )


async def write(source: Connection, src: int) -> int:
    """Writes a beat, and the row where there is none; returns the beat."""
    cur = await source.execute("select shardman.next_beat(%s)", (src,))
    row = await cur.fetchone()
    assert row is not None
    return int(row[0])


async def expect(source: Connection, dest: Connection, src: int) -> None:
    """Makes the row on the destination that the beats change; from here on none may be missing."""
    beat = await write(source, src)
    await dest.execute("select shardman.expect_beat(%s, %s)", (src, beat))


async def carry(
    source: Connection, dest: Connection, guard: Connection, channel: str, src: int
) -> None:
    """Gives beats to a channel that is there already; does nothing where it is not.

    Args:
        guard: one more session on the destination.
    """
    if channel not in await publications.ls(source, channel):
        return
    if channel not in await subscriptions.ls(dest, channel):
        return
    # The row before it flows: a change that finds none is a conflict. And once more when all arrive, for what
    # came before the subscription knew of beats is missing.
    await expect(source, dest, src)
    await publish(source, channel, src)
    await subscriptions.refresh(dest, channel, guard, await publications.carried(source, channel))
    await expect(source, dest, src)
