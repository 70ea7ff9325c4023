"""Nothing is adopted by its name: what is a stranger's is told, with the way out, and left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import psycopg
import pytest
from psycopg import sql

from shardman.errors import UserError
from shardman.pg import publications, slots, strangers, subscriptions
from shardman.pg.connection import Connection
from shardman.pg.initialize import initialize
from sql.databases import Node, Nodes, numbers


@pytest.fixture
def mallory(server: str) -> Iterator[str]:
    """An ordinary role."""
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute("drop role if exists mallory")
        admin.execute("create role mallory")
    yield "mallory"
    with psycopg.connect(server, autocommit=True) as admin:
        for (dbname,) in admin.execute("select datname from pg_database where datallowconn"):
            dsn = psycopg.conninfo.make_conninfo(server, dbname=dbname)
            with psycopg.connect(dsn, autocommit=True) as conn:
                conn.execute("drop owned by mallory cascade")
        admin.execute("drop role mallory")


def on(dsn: str, do: Callable[[Connection], Awaitable[object]]) -> object:
    """What is done on a session of the cluster's role."""

    async def run() -> object:
        conn = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
        async with conn:
            return await do(conn)

    return asyncio.run(run())


PLANT = "create schema shardman; grant all on schema shardman to mallory; set role mallory; "
FUNCTION = (
    "create function shardman.setting(text, text) returns text language sql as 'select 1::text'"
)
TRAPS = [
    ("create schema shardman authorization mallory", "a schema shardman of mallory"),
    (PLANT + FUNCTION, "a function shardman.setting of mallory"),
    (PLANT + "create table shardman.local (cluster text)", "a relation shardman.local of mallory"),
]


@pytest.mark.parametrize(("trap", "said"), TRAPS)
def test_a_schema_is_ours_with_all_that_is_in_it(
    server: str, mallory: str, trap: str, said: str
) -> None:
    dbname = f"n{next(numbers)}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(dbname)))
    dsn = psycopg.conninfo.make_conninfo(server, dbname=dbname)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(trap.encode())
    with pytest.raises(UserError, match=said):
        asyncio.run(initialize(dsn))
    with psycopg.connect(dsn, autocommit=True) as conn:
        query = "select to_regclass('shardman.migrations'), to_regprocedure('shardman.admit(text, bigint)')"
        assert conn.execute(query).fetchone() == (None, None)


def test_publications_subscriptions_and_slots(worker: Node, mallory: str) -> None:
    worker.run("grant create on database " + worker.conn.info.dbname + " to mallory")
    worker.run("set role mallory; create publication shardman_abcdef_1_2; reset role")
    with pytest.raises(UserError, match="a publication shardman_abcdef_1_2 of mallory"):
        on(worker.dsn, lambda c: publications.ensure_empty(c, "shardman_abcdef_1_2"))
    with pytest.raises(UserError, match="of mallory"):
        on(worker.dsn, lambda c: publications.ensure(c, "shardman_abcdef_1_2", []))
    worker.run(
        "create subscription shardman_abcdef_3_1 connection '' publication x with (connect = false);"
        "alter subscription shardman_abcdef_3_1 set (slot_name = none)"
    )
    worker.run(
        "alter role mallory superuser; alter subscription shardman_abcdef_3_1 owner to mallory"
    )
    worker.run("alter role mallory nosuperuser")
    with pytest.raises(UserError, match="a subscription shardman_abcdef_3_1 of mallory"):
        on(worker.dsn, lambda c: subscriptions.create(c, "shardman_abcdef_3_1", "", "x"))
    worker.run("drop subscription shardman_abcdef_3_1")
    worker.run("select pg_create_physical_replication_slot('shardman_abcdef_1_2')")
    with pytest.raises(UserError, match=r"replication slot shardman_abcdef_1_2 of another kind"):
        on(worker.dsn, lambda c: strangers.refuse_slot(c, "shardman_abcdef_1_2"))
    assert on(worker.dsn, lambda c: slots.ls(c, "shardman_abcdef_1_2")) == []
    worker.run("select pg_drop_replication_slot('shardman_abcdef_1_2')")


def test_a_publication_of_ours_is_what_it_must_be(worker: Node) -> None:
    worker.run("create publication shardman_abcdef_1_3 with (publish = 'insert')")
    on(worker.dsn, lambda c: publications.ensure_empty(c, "shardman_abcdef_1_3"))
    flags = "select pubinsert and pubupdate and pubdelete and pubtruncate from pg_publication"
    assert worker.rows(flags) == [(True,)]
    worker.run("drop publication shardman_abcdef_1_3")


def test_servers_and_routes(nodes: Nodes, mallory: str) -> None:
    nodes[1].run("create table acc (id int primary key, note text)")
    nodes.shard("acc", "id")
    node = nodes[2]
    node.run("grant usage on foreign data wrapper postgres_fdw to mallory")
    node.run("set role mallory; create server shardman_node_9 foreign data wrapper postgres_fdw")
    node.run("reset role")
    new = (
        "insert into shardman.nodes (id, connstring, worker_status, lord, options, roads)"
        " select 9, connstring || ' ', 'active', false, options, true from shardman.nodes where id = 1"
    )
    node.receive((new, ()))
    assert "shardman_node_9 belongs to mallory" in str(node.drift())
    # Nobody's password goes there, nor does a route.
    assert node.rows("select from pg_user_mappings where srvname = 'shardman_node_9'") == []
    node.receive(("update shardman.partitions set owner = 9 where part_name = 'acc_1'", ()))
    assert "belongs to mallory" in node.drift()["acc_1"]
    # A relation with the name of a route.
    nodes[1].run("create view acc_1_fdw as select 1 as mine")
    with pytest.raises(
        psycopg.errors.DuplicateTable, match=r"a view acc_1_fdw of .*, which is no route"
    ):
        nodes[1].rows("select shardman.make_route('acc_1', 'shardman_node_2')")
    nodes[1].run(
        "drop view acc_1_fdw; create server mine foreign data wrapper postgres_fdw;"
        "create foreign table acc_1_fdw (mine int) server mine"
    )
    with pytest.raises(psycopg.errors.DuplicateTable, match="a foreign table acc_1_fdw"):
        nodes[1].rows("select shardman.drop_route('acc_1')")


def test_what_a_command_makes_under_its_number(worker: Node, mallory: str) -> None:
    """Whatever has its name is somebody else's, also a superuser's: undone, the command would drop it."""
    name = "shardman_abcdef_c7"

    def refused(what: str) -> None:
        with pytest.raises(UserError, match=f"node 1 has a {what} {name}"):
            on(worker.dsn, lambda c: strangers.refuse_all(c, 1, name))

    on(worker.dsn, lambda c: strangers.refuse_all(c, 1, name))
    worker.run(f"create publication {name}")
    refused("publication")
    worker.run(f"drop publication {name}; select pg_create_physical_replication_slot('{name}')")
    refused("replication slot")
    worker.run(f"select pg_drop_replication_slot('{name}')")
    connect = "connection '' publication x with (connect = false, slot_name = none)"
    worker.run(f"create subscription {name} {connect}")
    refused("subscription")
    worker.run(f"drop subscription {name}")


def test_a_table_in_the_place_of_a_replicas(worker: Node, mallory: str) -> None:
    """A subscription finds tables by name, and on 15 runs their triggers as the cluster's role."""
    worker.run("create schema shop authorization mallory; create table shop.acc_0_data (id int)")

    async def learn(guard: Connection) -> None:
        async with (
            subscriptions.held(guard, "shardman_abcdef_1_2", ["shop.acc_0_data", "gone"]),
            await psycopg.AsyncConnection.connect(worker.dsn, autocommit=True) as other,
        ):
            await other.execute("set role mallory; set lock_timeout = '50ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                await other.execute("drop table shop.acc_0_data")

    on(worker.dsn, learn)
    worker.run(
        "set role mallory; drop table shop.acc_0_data; create table shop.acc_0_data (id int); reset role"
    )
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="belongs to mallory"):
        on(worker.dsn, learn)
    worker.run("drop schema shop cascade")
