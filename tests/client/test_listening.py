"""What a client hears of partitions that move: at once, by one session of the process for each node."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import psycopg
import pytest

import shardman
from client.tables import forty_rows
from shardman.testing import eventually
from shardman.testing.cluster import Cluster

#: So old the picture gets in no test: what is noticed was heard.
NEVER = 600.0
GET = "select n from acc where id = %s"
LISTENERS = "select count(*) from pg_stat_activity where query = 'listen shardman_layout'"


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Cluster:
    return forty_rows(cluster)


@pytest.fixture
def db(nodes: Cluster) -> Iterator[shardman.Connection]:
    with shardman.connect(nodes.dsn(2), autocommit=True, refresh_seconds=NEVER) as db:
        # It listens from its first look at the partitions on.
        db.drive(db.router.refresh(now=True))
        yield db


def node_of(db: shardman.Connection, key: int) -> str:
    db.execute(GET, (key,))
    return db.explain_route(GET, (key,)).node


def move(nodes: Cluster, key: int, node: int) -> None:
    found = f"from shardman.partition_of('acc', {key})"
    if nodes.value(1, f"select node {found}") == node:
        return
    part = nodes.value(1, f"select partition {found}")
    done = nodes.cmd(f"select shardman.move_part('{part}', {node})")
    assert done.status == "success", done


def test_it_hears_of_moves_to_here_from_here_and_elsewhere(
    nodes: Cluster, db: shardman.Connection
) -> None:
    key = 7
    move(nodes, key, 1)
    for node in (3, 2, 1, 2):
        move(nodes, key, node)
        eventually("it is known", lambda n=node: node_of(db, key) == f"node {n}", seconds=5)


def test_a_process_has_one_session_for_it(nodes: Cluster) -> None:
    async def beside() -> str:
        async with await shardman.AsyncConnection.connect(
            nodes.dsn(2), autocommit=True, refresh_seconds=NEVER
        ) as other:
            await other.drive(other.router.refresh(now=True))
            assert nodes.value(2, LISTENERS) == 1
            await asyncio.to_thread(move, nodes, 9, 1)
            for _ in range(100):
                await other.execute(GET, (9,))
                if other.explain_route(GET, (9,)).node == "node 1":
                    break
                await asyncio.sleep(0.05)
            return other.explain_route(GET, (9,)).node

    move(nodes, 9, 3)
    with shardman.connect(nodes.dsn(2), autocommit=True, refresh_seconds=NEVER) as db:
        db.drive(db.router.refresh(now=True))
        assert asyncio.run(beside()) == "node 1"
        assert nodes.value(2, LISTENERS) == 1
        # It hears nothing for a while, and says so: what was missed is looked for.
        heard = db.router._heard
        nodes.sql(
            2,
            "select pg_terminate_backend(pid) from pg_stat_activity where query like 'listen shard%'",
        )
        eventually("it is missed", lambda: db.execute(GET, (9,)) and db.router._heard > heard)
        assert node_of(db, 9) == "node 1"
    eventually("it is closed", lambda: nodes.value(2, LISTENERS) == 0)


def test_a_child_process_leaves_it_alone(nodes: Cluster, db: shardman.Connection) -> None:
    child = os.fork()
    if child == 0:
        db.router._leave_ear()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    move(nodes, 11, 1)
    move(nodes, 11, 3)
    eventually("it is known", lambda: node_of(db, 11) == "node 3", seconds=5)


def test_the_application_gets_its_own_notifications_only(
    nodes: Cluster, db: shardman.Connection
) -> None:
    db.execute("listen mine")
    move(nodes, 13, 1)
    move(nodes, 13, 3)
    with psycopg.connect(nodes.dsn(2), autocommit=True) as conn:
        conn.execute("notify mine, 'x'")
    assert [n.channel for n in db.notifies(timeout=2, stop_after=1)] == ["mine"]
