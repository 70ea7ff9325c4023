"""The wire that can be cut."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from shardman.pg.connection import SyncConnection
from shardman.testing import Cluster, Proxy, eventually
from shardman.testing.plugin import ClusterFactory, ProxyFactory


@pytest.fixture(scope="module")
def server(module_cluster_factory: ClusterFactory) -> Cluster:
    return module_cluster_factory(workers=0, bare=True)


@pytest.fixture
def proxy(server: Cluster, proxy_factory: ProxyFactory) -> Proxy:
    return proxy_factory(server.lord_dsn)


@pytest.fixture
def connection(proxy: Proxy) -> Iterator[SyncConnection]:
    with psycopg.connect(proxy.dsn, autocommit=True) as connection:
        yield connection


def seconds_of(connection: SyncConnection) -> float:
    begin = time.monotonic()
    connection.execute("select 1")
    return time.monotonic() - begin


def test_it_passes_everything_on(connection: SyncConnection, proxy: Proxy) -> None:
    row = connection.execute("select repeat('x', 3000000)").fetchone()
    assert row is not None
    assert len(row[0]) == 3_000_000
    assert connection.info.port == proxy.port
    assert proxy.connections == 1


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def test_cut_is_silent_and_healing_delivers(
    connection: SyncConnection, proxy: Proxy, server: Cluster, background: ThreadPoolExecutor
) -> None:
    server.sql(0, "create table cut_log (n int)")
    proxy.cut()
    writing = background.submit(connection.execute, "insert into cut_log values (1)")
    time.sleep(0.2)
    assert server.value(0, "select count(*) from cut_log") == 0
    assert not writing.done()
    proxy.heal()
    writing.result(10)
    assert server.value(0, "select count(*) from cut_log") == 1


def test_one_way_the_request_arrives_and_the_answer_does_not(
    connection: SyncConnection, proxy: Proxy, server: Cluster, background: ThreadPoolExecutor
) -> None:
    server.sql(0, "create table half_log (n int)")
    proxy.cut(to_server=False)
    writing = background.submit(connection.execute, "insert into half_log values (1)")
    written = "select count(*) from half_log"
    eventually("the row is there", lambda: server.value(0, written), seconds=5, every=0)
    time.sleep(0.1)
    assert not writing.done()
    proxy.heal()
    writing.result(10)


def test_delay(connection: SyncConnection, proxy: Proxy) -> None:
    assert min(seconds_of(connection) for _ in range(9)) < 0.15
    proxy.delay(0.1)
    assert seconds_of(connection) >= 0.2
    proxy.heal()
    assert min(seconds_of(connection) for _ in range(9)) < 0.15


def test_drop_resets_and_new_connections_are_welcome(
    connection: SyncConnection, proxy: Proxy
) -> None:
    assert proxy.drop() == 1
    with pytest.raises(psycopg.OperationalError):
        connection.execute("select 1")
    with psycopg.connect(proxy.dsn) as another:
        another.execute("select 1")


def test_refuse_resets_until_healed(connection: SyncConnection, proxy: Proxy) -> None:
    proxy.refuse()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(proxy.dsn)
    proxy.heal()
    with psycopg.connect(proxy.dsn) as another:
        another.execute("select 1")


def test_a_server_that_is_down_looks_down(proxy: Proxy, server: Cluster) -> None:
    server.stop_node(0)
    try:
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(proxy.dsn)
    finally:
        server.start_node(0)
    with psycopg.connect(proxy.dsn) as another:
        another.execute("select 1")
