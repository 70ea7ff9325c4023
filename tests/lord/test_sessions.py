"""No session of a leadership outlives it, wherever its tasks were when it ended."""

from __future__ import annotations

import asyncio
import contextlib
import gc

import psycopg
import pytest

from shardman import names
from shardman.errors import Refused
from shardman.lord.idle import IdleSessions
from shardman.lord.sessions import Sessions, open_session
from shardman.pg.connection import Connection
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually


def held(cluster: Cluster, epoch: int) -> int:
    """How many sessions of an epoch the lord's server has, apart from those of the real shardlord."""
    query = "select count(*) from pg_stat_activity where application_name = %s"
    return int(cluster.value(0, query, (names.application(epoch),)))


def sessions_beside(cluster: Cluster) -> tuple[Sessions, int]:
    """Sessions of a leadership, and how many the acting shardlord itself has: it does not act meanwhile."""
    cluster.stop_lord()
    cluster_id = str(cluster.value(0, "select cluster from shardman.local"))
    epoch = int(cluster.value(0, "select epoch from shardman.local"))
    return Sessions(cluster.lord_dsn, cluster_id, epoch), epoch


def test_who_is_cancelled_while_a_session_opens_leaves_none(cluster: Cluster) -> None:
    """Without a collection of garbage: an idle shardlord collects none for minutes."""
    sessions, epoch = sessions_beside(cluster)

    async def cancel_everywhere() -> list[asyncio.Task[object]]:
        tasks: list[asyncio.Task[object]] = []
        for ms in range(40):
            task: asyncio.Task[object] = asyncio.create_task(sessions.lord())
            await asyncio.sleep(ms / 2000)
            task.cancel()
            tasks.append(task)
        await asyncio.wait(tasks)
        sessions.end()
        await asyncio.sleep(0.5)
        assert any(t.cancelled() for t in tasks)
        return tasks

    gc.collect()
    gc.disable()
    try:
        kept = asyncio.run(cancel_everywhere())
        eventually("none is left", lambda: held(cluster, epoch), until=lambda n: n == 0, seconds=10)
        del kept
    finally:
        gc.enable()
        cluster.start_lord()


def test_the_end_of_a_leadership_hangs_up_sessions_in_use(cluster: Cluster) -> None:
    sessions, epoch = sessions_beside(cluster)

    async def use_and_end() -> None:
        idle, busy = await sessions.lord(), await sessions.lord()
        asked = asyncio.create_task(busy.execute("select pg_sleep(60)"))
        await asyncio.sleep(0.1)
        sessions.end()
        with contextlib.suppress(Exception):
            await asked
        assert await asyncio.to_thread(_none, cluster, epoch)
        with pytest.raises(Refused):
            await sessions.lord()
        await idle.close()

    try:
        asyncio.run(use_and_end())
        assert _none(cluster, epoch)
    finally:
        cluster.start_lord()


def _none(cluster: Cluster, epoch: int) -> bool:
    return eventually("none is left", lambda: held(cluster, epoch) == 0, seconds=10)


def test_a_session_in_use_again_does_not_end_when_it_would_have_idle(cluster: Cluster) -> None:
    sessions, _ = sessions_beside(cluster)

    async def use_twice() -> None:
        idle, conn = IdleSessions(), await sessions.lord()
        assert idle.put("here", conn, 0.3)
        await asyncio.sleep(0.2)
        assert idle.kept("here").pop() is conn
        assert idle.put("here", conn, 0.3)
        await asyncio.sleep(0.2)
        assert idle.kept("here") == [conn]
        await asyncio.sleep(0.2)
        assert conn.closed
        assert idle.kept("here") == []

    try:
        asyncio.run(use_twice())
    finally:
        sessions.end()
        cluster.start_lord()


async def _waits(conn: Connection) -> asyncio.Task[object]:
    """Somebody who waits in a session."""
    task: asyncio.Task[object] = asyncio.create_task(conn.execute("select pg_sleep(60)"))
    await asyncio.sleep(0.1)
    return task


async def test_a_session_is_closed_in_which_somebody_waits(cluster: Cluster) -> None:
    """He gets an error, at once, and the next session has the number of its socket."""
    conn = await open_session(cluster.lord_dsn, "test of ends")
    number, waiting = conn.pgconn.socket, await _waits(conn)
    await conn.close()
    with pytest.raises(psycopg.OperationalError):
        await asyncio.wait_for(waiting, 0.5)
    again = await psycopg.AsyncConnection.connect(cluster.lord_dsn)
    assert again.pgconn.socket == number
    await again.close()


async def test_the_number_of_a_socket_that_the_loop_still_knows(cluster: Cluster) -> None:
    """As psycopg alone closes a session: opening the next one is tried once more."""
    conn = await open_session(cluster.lord_dsn, "test of ends")
    number, waiting = conn.pgconn.socket, await _waits(conn)
    await psycopg.AsyncConnection.close(conn)
    again = await open_session(cluster.lord_dsn, "test of ends")
    assert again.pgconn.socket == number
    assert await (await again.execute("select 1")).fetchone() == (1,)
    waiting.cancel()
    await asyncio.wait({waiting}, timeout=5)
    assert waiting.done()
    await again.close()
