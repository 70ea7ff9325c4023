"""Takes what is ours off a server: what a node that leaves has, and what a former cluster left."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from psycopg import sql

from shardman import names
from shardman.pg import publications, slots, standby_names, subscriptions
from shardman.pg.connection import Connection
from shardman.pg.schema import remove
from shardman.steps.base import Run
from shardman.steps.catalog import value
from shardman.steps.locks import Busy, Deadline, patiently

READERS = "clients that use the schema shardman"


async def drop_streams(conn: Connection) -> None:
    """Drops every subscription, slot and publication of ours in a database, of whatever cluster."""
    for name in filter(names.is_ours, await subscriptions.ls(conn, "shardman_")):
        await subscriptions.drop(conn, name)
    for name in filter(names.is_ours, await slots.ls(conn, "shardman_")):
        await slots.drop(conn, name)
    for name in filter(names.is_ours, await publications.ls(conn, "shardman_")):
        await publications.drop(conn, name)


async def wait_for_nobody(conn: Connection) -> None:
    """Lets no commit wait for channels that are gone. Not before the old primaries are out of use: a
    commit that hangs on one is a write that the cluster does not have."""
    await standby_names.set_replicas(conn, "", [])


async def roll_back_prepared(conn: Connection) -> None:
    """Rolls back what an abandoned cut-over has prepared: its locks would never end."""
    cur = await conn.execute(
        "select gid from pg_prepared_xacts where database = current_database()"
    )
    for gid in [row[0] for row in await cur.fetchall() if names.is_ours(row[0])]:
        await conn.execute(sql.SQL("rollback prepared {}").format(sql.Literal(gid)))


async def forget(run: Run, conn: Connection, node: int, limit_s: float = math.inf) -> list[str]:
    """Takes tables, routes and servers away, all at once: a crash leaves all or nothing. Then the schema.

    Args:
        limit_s: afterwards those who use the tables are waited for no longer.

    Returns:
        The tables with rows, which have other names now.
    """

    async def tables(deadline: Deadline) -> list[str]:
        await conn.execute("select shardman.evict_waiting_commits()")
        async with locking(conn, deadline, f"clients that use sharded tables on node {node}"):
            await reconciled_by_nobody(conn)
            aside = await value(conn, "select shardman.forget_tables(%s)", run.cmd_id)
            await conn.execute("select shardman.drop_routes()")
            await conn.execute("select shardman.take_back()")
        return list(aside or [])

    async def schema(deadline: Deadline) -> None:
        async with locking(conn, deadline, f"{READERS} on node {node}"):
            await remove(conn)

    aside = await patiently(run, tables, limit_s=limit_s)
    await wait_for_nobody(conn)
    await patiently(run, schema, limit_s=limit_s)
    return aside


@asynccontextmanager
async def locking(conn: Connection, deadline: Deadline, whom: str) -> AsyncIterator[None]:
    """A transaction that waits for no lock after the deadline.

    Args:
        whom: who may hold what it needs.

    Raises:
        Busy: somebody does.
    """
    try:
        async with conn.transaction():
            await conn.execute(
                sql.SQL("set local lock_timeout = {}").format(sql.Literal(deadline.left_ms()))
            )
            yield
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
        raise Busy(whom) from None


async def reconciled_by_nobody(conn: Connection) -> None:
    """From this transaction on, which waits for the reconciliation that runs, the database is not brought in
    line with its metadata any more. As long as the schema is there another shardlord, that of a former
    cluster say, would make again what they list. A crash leaves it so; the next attempt takes the rest away.

    Raises:
        Busy: it is being reconciled just now.
    """
    if not await value(conn, "select shardman.take_reconcile_lock()"):
        raise Busy("a reconciliation of the node")
    await conn.execute("update shardman.local set leaving = true")
