"""A lord and two workers, without a shardlord, for each test."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from shardman.local import Programs
from shardman.pg.schema import install
from shardman.testing.cluster import Cluster
from sql.databases import LORD, Node, Nodes, numbers

TEMPLATE = "shardman_template"


@pytest.fixture(scope="session")
def server(pg_programs: Programs) -> Iterator[str]:
    """One server with a database that has our schema, to copy others from."""
    with closing(Cluster(workers=0, bare=True, pg_bin=pg_programs.bin)) as cluster:
        with psycopg.connect(cluster.lord_dsn, autocommit=True) as conn:
            conn.execute(sql.SQL("create database {}").format(sql.Identifier(TEMPLATE)))
        asyncio.run(_install(psycopg.conninfo.make_conninfo(cluster.lord_dsn, dbname=TEMPLATE)))
        yield cluster.lord_dsn


async def _install(dsn: str) -> None:
    conn = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
    async with conn:
        await install(conn)


@pytest.fixture
def nodes(server: str) -> Iterator[Nodes]:
    """A lord and two workers that know each other."""
    with closing(make_nodes(server, range(3))) as made:
        yield made


@pytest.fixture(scope="session")
def worker(server: str) -> Iterator[Node]:
    with closing(make_nodes(server, [1])) as made:
        yield made.all[0]


@pytest.fixture
def node(worker: Node) -> Iterator[Node]:
    """A worker, alone, inside a transaction that is rolled back."""
    with worker.conn.transaction(force_rollback=True):
        yield worker


def make_nodes(dsn: str, ids: Iterable[int], *, user: str | None = None, suffix: str = "") -> Nodes:
    """Databases that go with their server, when all tests are done.

    Args:
        user: the nodes' role, a superuser whose password is that of the server's; None: the server's.
        suffix: of the databases' names.
    """
    made = []
    with psycopg.connect(dsn, autocommit=True) as admin:
        for node_id in ids:
            dbname = f"n{next(numbers)}{suffix}"
            admin.execute(
                sql.SQL("create database {} template {}").format(
                    sql.Identifier(dbname), sql.Identifier(TEMPLATE)
                )
            )
            made.append(Node(node_id, dsn, dbname, user))
    for each in made:
        if user:
            each.conn.execute(
                sql.SQL("alter schema shardman owner to {}").format(sql.Identifier(user))
            )
        each.rows(
            "update shardman.local set cluster = 'abcdef', node_id = %s, lord = %s",
            each.id,
            each.id == LORD,
        )
    nodes = Nodes(made)
    secret = "insert into shardman.road_secret (secret) values (repeat('s', 64))"
    password = "insert into shardman.node_secrets (node_id, password) values (%s, %s)"
    nodes.receive(
        (secret, ()),
        # Tests make on each node what it is to have.
        ("insert into shardman.settings values ('spread_ddl', 'none')", ()),
        *(_node_row(each) for each in made),
        *((password, (each.id, each.password)) for each in made),
    )
    return nodes


INSERT_NODE = """
insert into shardman.nodes (id, connstring, worker_status, lord, options, roads)
values (%s, %s, %s::shardman.worker_node_status, %s, %s, true)
"""


def _node_row(node: Node) -> tuple[str, tuple[Any, ...]]:
    params = psycopg.conninfo.conninfo_to_dict(node.dsn)
    options = {k: str(v) for k, v in params.items() if k in ("host", "port", "dbname", "user")}
    is_lord = node.id == LORD
    return (
        INSERT_NODE,
        (node.id, node.dsn, None if is_lord else "active", is_lord, Jsonb(options)),
    )
