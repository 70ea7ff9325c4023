"""Transactions that wait for each other over several nodes: the youngest is cancelled, and nobody else."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

import shardman
from schema.bob import move_in
from shardman.testing import eventually
from shardman.testing.cluster import Cluster

WAITING = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Cluster:
    schema = """
    create table acc (id int primary key, n int not null);
    insert into acc select i, 30 from generate_series(1, 60) i;
    """
    move_in(
        cluster, schema, ["select shardman.create_hash_partitions(1, 'app.acc', 'id', 6)"], "acc"
    )
    for node in (0, 1, 2, 3):
        cluster.sql(node, "create role mallory login password 'b'")
    usage = "select has_schema_privilege('bob', 'shardman', 'usage')"
    eventually("bob is let in", lambda: all(cluster.value(n, usage) for n in (0, 1, 2, 3)))
    return cluster


def dsn(cluster: Cluster, node: int, **more: str) -> str:
    return psycopg.conninfo.make_conninfo(
        cluster.dsn(node),
        **{"user": "bob", "password": "b", "options": "-c search_path=app", **more},
    )


def keys(cluster: Cluster) -> dict[int, int]:
    """A key on each node."""
    one_of_each = """
    select p.node, min(i) from generate_series(1, 60) i
     cross join lateral shardman.partition_of('app.acc', i) p group by p.node
    """
    return dict(cluster.sql(1, one_of_each))


def waiting(cluster: Cluster) -> int:
    return sum(cluster.value(n, WAITING) for n in (1, 2, 3))


def count(cluster: Cluster) -> int:
    found = cluster.value(0, "select count(*) from shardman.deadlocks")
    assert isinstance(found, int)
    return found


def take(db: Any, id_: int) -> Any:
    return db.execute("update acc set n = n + 1 where id = %s", (id_,))


@pytest.fixture
def later() -> Iterator[Callable[..., Future[Any]]]:
    with ThreadPoolExecutor(8) as pool:
        yield pool.submit


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_two_clients(nodes: Cluster, stack: ExitStack, later: Callable[..., Future[Any]]) -> None:
    a, b = keys(nodes)[1], keys(nodes)[2]
    old = stack.enter_context(shardman.connect(dsn(nodes, 3, application_name="old")))
    young = stack.enter_context(shardman.connect(dsn(nodes, 3, application_name="young")))
    take(old, a), take(young, b)
    waits = later(take, old, b)
    eventually("the older one waits", lambda: waiting(nodes) == 1)
    with pytest.raises(psycopg.errors.DeadlockDetected, match="over several nodes") as told:
        take(young, a)
    assert told.value.node == "node 1"  # type: ignore[attr-defined]
    assert isinstance(told.value.__cause__, psycopg.errors.QueryCanceled)
    young.rollback()
    waits.result()
    old.commit()
    row = nodes.sql(0, "select node, login, application, circle, told from shardman.deadlocks")
    assert (row[-1][:2], row[-1][2][:7]) == ((1, "bob"), "young +")
    assert row[-1][3].count(" waits for pid ") == 2
    # Where it was cancelled it is told once; the copy on the lord is for people.
    (told_there,) = nodes.sql(1, "select told from shardman.deadlocks")
    assert told_there == (True,)
    young.execute("set statement_timeout = '100ms'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        young.execute("select pg_sleep(5)")


def test_through_routes(
    nodes: Cluster, stack: ExitStack, later: Callable[..., Future[Any]]
) -> None:
    """A server says of a statement that was cancelled what it says of each."""
    a, b = keys(nodes)[1], keys(nodes)[2]
    before = count(nodes)
    old = stack.enter_context(psycopg.connect(dsn(nodes, 1)))
    young = stack.enter_context(psycopg.connect(dsn(nodes, 2)))
    take(old, a), take(young, b)
    waits = later(take, old, b)
    eventually("the older one waits", lambda: waiting(nodes) == 1)
    with pytest.raises(psycopg.errors.QueryCanceled):
        take(young, a)
    young.rollback()
    waits.result()
    old.rollback()
    assert count(nodes) == before + 1
    node, pid = nodes.sql(0, "select node, pid from shardman.deadlocks order by at desc limit 1")[0]
    assert (node, pid) == (2, young.info.backend_pid)


def test_a_client_and_a_route_and_a_third(
    nodes: Cluster, stack: ExitStack, later: Callable[..., Future[Any]]
) -> None:
    a, b, c = (keys(nodes)[n] for n in (1, 2, 3))
    first = stack.enter_context(psycopg.connect(dsn(nodes, 3)))
    second = stack.enter_context(shardman.connect(dsn(nodes, 3)))
    take(first, a), take(second, b)

    async def third() -> None:
        async with await shardman.AsyncConnection.connect(dsn(nodes, 1)) as db:
            await db.execute("update acc set n = n + 1 where id = %s", (c,))
            taken.set_result(None)
            await db.execute("update acc set n = n + 1 where id = %s", (a,))

    taken: Future[None] = Future()
    failing = later(asyncio.run, third())
    taken.result(10)
    waits = [later(take, first, b), later(take, second, c)]
    with pytest.raises(psycopg.errors.DeadlockDetected):
        failing.result(10)
    waits[1].result(10)
    second.rollback()
    waits[0].result(10)


def test_who_only_waits_is_left_alone(
    nodes: Cluster, stack: ExitStack, later: Callable[..., Future[Any]]
) -> None:
    """Also where a stranger says that he belongs to somebody's transaction."""
    a, b = keys(nodes)[1], keys(nodes)[2]
    before = count(nodes)
    holder = stack.enter_context(shardman.connect(dsn(nodes, 3)))
    waiter = stack.enter_context(shardman.connect(dsn(nodes, 3)))
    take(holder, a), take(waiter, b)
    waits = later(take, waiter, a)
    eventually("it waits", lambda: waiting(nodes) == 1)
    # As if the holder waited for the waiter on another node.
    name = nodes.value(
        1, "select application_name from pg_stat_activity where pid = %s",
        (holder.router.sessions[holder.router.parts()[0]].info.backend_pid,),
    )  # fmt: skip
    nodes.sql(2, "grant usage on schema app to mallory; grant all on app.acc to mallory")
    mallory = stack.enter_context(
        psycopg.connect(dsn(nodes, 2, user="mallory", application_name=str(name)))
    )
    mallory.execute("set statement_timeout = '3s'")
    with pytest.raises(psycopg.errors.QueryCanceled, match="statement timeout"):
        take(mallory, b)
    assert not waits.done()
    holder.rollback()
    waits.result()
    waiter.rollback()
    assert count(nodes) == before


def test_transfers_in_any_order(nodes: Cluster, later: Callable[..., Future[Any]]) -> None:
    """Each is repeated until it has succeeded."""
    ids = [*keys(nodes).values()]
    sums = "select sum(n) from app.acc where id = any (%s)"
    before = nodes.value(1, sums, (ids,))

    def pay(db: shardman.Connection) -> None:
        for id_, n in zip(random.sample(ids, 2), (1, -1), strict=True):
            db.execute("update acc set n = n + %s where id = %s", (n, id_))

    def work() -> None:
        with shardman.connect(dsn(nodes, 2)) as db:
            for _ in range(4):
                db.run(pay, attempts=None)

    for each in [later(work) for _ in range(3)]:
        each.result(120)
    assert nodes.value(1, sums, (ids,)) == before
