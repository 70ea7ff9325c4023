"""Pools that threads and tasks share."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

import shardman
from client.tables import forty_rows
from shardman.testing import eventually
from shardman.testing.cluster import Cluster

PAY = "update acc set n = n + %s where id = %s"
SESSIONS = "select count(*) from pg_stat_activity where application_name like 'pooled %%'"


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Cluster:
    return forty_rows(cluster)


def dsn(nodes: Cluster) -> str:
    return psycopg.conninfo.make_conninfo(nodes.dsn(2), application_name="pooled")


def test_threads_share_few_sessions(nodes: Cluster) -> None:
    with shardman.ConnectionPool(dsn(nodes), min_size=1, max_size=3, open=True) as pool:

        def pay(_number: int) -> int:
            one, other = random.sample(range(1, 41), 2)
            with pool.connection() as db:
                db.run(lambda db: [db.execute(PAY, (1, one)), db.execute(PAY, (-1, other))])
                return sum(nodes.value(2, SESSIONS) for _ in range(1))

        with ThreadPoolExecutor(8) as threads:
            seen = list(threads.map(pay, range(60)))
        assert max(seen) <= 3
        assert [nodes.value(n, SESSIONS) <= 3 for n in (1, 2, 3)] == [True] * 3
        assert nodes.value(1, "select sum(n) from acc") == 0
        assert nodes.value(1, "select sum(abs(n)) from acc") > 0
    eventually("they are closed", lambda: all(nodes.value(n, SESSIONS) == 0 for n in (1, 2, 3)))


def test_what_is_left_open_on_other_nodes_is_rolled_back(nodes: Cluster) -> None:
    with shardman.ConnectionPool(dsn(nodes), min_size=1, max_size=1, open=True) as pool:
        db = pool.getconn()
        for key in range(1, 41):
            if db.explain_route(PAY, (0, key)).node != "node 2":
                db.execute(PAY, (1000, key))
        assert db.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE
        pool.putconn(db)
        with pool.connection() as again:
            assert again is db
            assert again.execute("select max(n) < 1000 from acc").fetchone() == (True,)


def test_in_a_block_it_is_committed_and_kept(nodes: Cluster) -> None:
    reset: list[shardman.Connection] = []
    with shardman.ConnectionPool(
        dsn(nodes),
        min_size=1,
        max_size=1,
        open=True,
        kwargs={"fanout": "single"},
        reset=reset.append,
    ) as pool:
        with pool.connection() as db:
            db.execute("update acc set n = n where id = 1")
            with pytest.raises(psycopg.errors.FeatureNotSupported, match="more than one"):
                db.execute("select count(*) from acc")
        eventually("it was reset", lambda: reset == [db])
        assert not db.closed
    assert db.closed


def test_tasks(nodes: Cluster) -> None:
    async def use() -> int:
        async with shardman.AsyncConnectionPool(
            dsn(nodes), min_size=1, max_size=2, open=False
        ) as pool:

            async def pay(key: int) -> None:
                async with pool.connection() as db, db.transaction():
                    await db.execute(PAY, (1, key))
                    await db.execute(PAY, (-1, 41 - key))

            await asyncio.gather(*(pay(k) for k in range(1, 21)))
            db = await pool.getconn()
            for key in range(1, 9):
                await db.execute(PAY, (1000, key))
            await pool.putconn(db)
            async with pool.connection() as again:
                row = await (await again.execute("select max(n) from acc")).fetchone()
                return int(row[0])

    assert asyncio.run(use()) < 1000
    assert nodes.value(1, "select sum(n) from acc") == 0


def test_nothing_is_warned_of(nodes: Cluster) -> None:
    """A COMMIT behind PREPARE TRANSACTION would be."""
    heard: list[str] = []
    with shardman.connect(nodes.dsn(2), autocommit=True) as db:
        db.add_notice_handler(lambda notice: heard.append(notice.message_primary or ""))
        for _ in range(3):
            with db.transaction():
                for key in range(1, 41):
                    db.execute(PAY, (0, key))
            assert len(db.router.sessions) == 3
        db.execute("do $$ begin raise notice 'heard'; end $$")
    assert heard == ["heard"]
