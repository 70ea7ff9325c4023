"""What the shardlord knows of the cluster follows what is in the lord's database; what a ping says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import psycopg
import pytest

from shardman.lord.ask import ANSWER_S, NO_ANSWER, Asker
from shardman.lord.listener import GLANCE_S, Listener
from shardman.lord.metadata import Metadata
from shardman.lord.sessions import Sessions, open_session
from shardman.lord.task_group import run_together
from shardman.testing.cluster import Cluster
from shardman.testing.faults import freeze

#: A notification is there within milliseconds; machines are shared.
AT_ONCE_S = 1.0


def sessions_of(cluster: Cluster) -> Sessions:
    """Those of the acting shardlord, as far as the nodes can tell."""
    cluster_id, epoch = cluster.sql(0, "select cluster, epoch from shardman.local")[0]
    return Sessions(cluster.lord_dsn, cluster_id, epoch)


@asynccontextmanager
async def listening(cluster: Cluster, heard: Callable[[], None]) -> AsyncIterator[Metadata]:
    sessions = sessions_of(cluster)
    conn = await sessions.lord()
    metadata = Metadata(conn)
    await metadata.read()
    listener = Listener(sessions, metadata, heard)
    both = asyncio.create_task(run_together(metadata=metadata.run(), listener=listener.run()))
    try:
        await asyncio.sleep(0.3)  # It listens.
        yield metadata
    finally:
        both.cancel()
        await asyncio.wait({both})
        await conn.close()


async def seen(metadata: Metadata, value: str | None) -> float:
    """Seconds until a setting is known."""
    begun = time.monotonic()
    while metadata.known.settings.values.get("watched") != value:
        assert time.monotonic() - begun < 30
        await asyncio.sleep(0.005)
    return time.monotonic() - begun


async def test_a_change_is_known_at_once_and_nothing_is_read_without_one(cluster: Cluster) -> None:
    async with listening(cluster, lambda: None) as metadata:
        for query, value in (
            ("insert into shardman.settings values ('watched', '1')", "1"),
            ("update shardman.settings set value = '2' where name = 'watched'", "2"),
            ("delete from shardman.settings where name = 'watched'", None),
        ):
            await asyncio.to_thread(cluster.sql, 0, query)  # type: ignore[arg-type]
            assert await seen(metadata, value) < AT_ONCE_S
        known = metadata.known
        await asyncio.sleep(2 * GLANCE_S)
        assert metadata.known is known


async def test_a_change_that_nobody_told_of_is_known_after_a_glance(cluster: Cluster) -> None:
    async with listening(cluster, lambda: None) as metadata:
        await asyncio.to_thread(
            cluster.sql, 0, "alter table shardman.settings disable trigger changed"
        )
        try:
            for query, value in (
                ("insert into shardman.settings values ('watched', '1')", "1"),
                ("update shardman.settings set value = '2' where name = 'watched'", "2"),
                ("delete from shardman.settings where name = 'watched'", None),
            ):
                await asyncio.to_thread(cluster.sql, 0, query)  # type: ignore[arg-type]
                assert await seen(metadata, value) < GLANCE_S + AT_ONCE_S
        finally:
            cluster.sql(0, "alter table shardman.settings enable trigger changed")


@pytest.mark.parametrize("table", ["nodes", "tables", "partitions", "settings"])
async def test_every_table_of_the_metadata_tells(cluster: Cluster, table: str) -> None:
    async with listening(cluster, lambda: None) as metadata:
        known = metadata.known
        # Not a row changes: what counts is the statement.
        query = f"delete from shardman.{table} where false"
        await asyncio.to_thread(cluster.sql, 0, query)  # type: ignore[arg-type]
        begun = time.monotonic()
        await metadata.change(known, 30)
        assert metadata.known is not known
        assert time.monotonic() - begun < AT_ONCE_S


async def test_a_command_is_heard_of_and_is_no_change_of_the_metadata(cluster: Cluster) -> None:
    commands: list[float] = []
    async with listening(cluster, lambda: commands.append(time.monotonic())) as metadata:
        known = metadata.known
        done = await asyncio.to_thread(cluster.cmd, "select shardman.rm_node(99)")
        assert done.status == "failed"
        assert commands
        assert metadata.known is known


async def test_a_ping_is_answered_and_costs_no_session_each_time(cluster: Cluster) -> None:
    asker = Asker(sessions_of(cluster), 1)
    await asker.ping()
    pid = (await asker.ask("select pg_backend_pid()"))[0][0]
    for _ in range(20):
        await asker.ping()
    assert await asker.ask("select pg_backend_pid()") == [(pid,)]
    await asker.close()


async def test_a_session_that_was_ended_leaves_nothing_with_the_event_loop(
    cluster: Cluster,
) -> None:
    """The next connection gets its number: it must not find the old one registered."""
    asker = Asker(sessions_of(cluster), 1)
    for _ in range(10):
        await asker.ping()
        pid = (await asker.ask("select pg_backend_pid()"))[0][0]
        await asyncio.to_thread(cluster.sql, 1, "select pg_terminate_backend(%s, 5000)", (pid,))
        with pytest.raises(NO_ANSWER):
            await asker.ping()
        others = [await open_session(cluster.dsn(1), "test") for _ in range(3)]
        for other in others:
            await other.execute("select")
            await other.close()
    await asker.close()


async def test_a_server_that_hangs_answers_no_ping(cluster: Cluster) -> None:
    asker = Asker(sessions_of(cluster), 1)
    await asker.ping()
    thaw = freeze(cluster, 1)
    try:
        begun = time.monotonic()
        with pytest.raises((TimeoutError, psycopg.Error)):
            await asker.ping()
        assert time.monotonic() - begun < ANSWER_S + AT_ONCE_S
    finally:
        thaw()
    await asker.close()
