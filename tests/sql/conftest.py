"""A lord and two workers, without a shardlord, for each test."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, closing

import psycopg
import pytest
from databases import LORD, Node, Nodes, numbers
from psycopg import sql
from psycopg.types.json import Jsonb

from shardman.pg.schema import install
from shardman.testing.cluster import Cluster

TEMPLATE = "shardman_template"


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """One server with a database that has our schema, to copy others from."""
    with closing(Cluster(workers=0, bare=True)) as cluster:
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
    with ExitStack() as stack:
        yield stack.enter_context(closing(_make_nodes(server, stack)))


@pytest.fixture
def node(nodes: Nodes) -> Node:
    """A worker."""
    return nodes[1]


def _make_nodes(dsn: str, stack: ExitStack) -> Nodes:
    made = []
    admin = stack.enter_context(psycopg.connect(dsn, autocommit=True))
    for node_id in range(3):
        dbname = f"n{next(numbers)}"
        admin.execute(
            sql.SQL("create database {} template {}").format(
                sql.Identifier(dbname), sql.Identifier(TEMPLATE)
            )
        )
        stack.callback(
            admin.execute, sql.SQL("drop database {} with (force)").format(sql.Identifier(dbname))
        )
        made.append(Node(node_id, dsn, dbname))
    nodes = Nodes(made)
    for each in made:
        each.rows(
            "update shardman.local set cluster = 'abcdef', node_id = %s, lord = %s",
            each.id,
            each.id == LORD,
        )
    nodes.receive(*(_node_row(each) for each in made))
    return nodes


def _node_row(node: Node) -> tuple[str, tuple[Any, ...]]:
    params = psycopg.conninfo.conninfo_to_dict(node.dsn)
    options = {k: str(v) for k, v in params.items() if k in ("host", "port", "dbname", "user")}
    return (
        "insert into shardman.nodes (id, connstring, worker_status, lord, options)"
        " values (%s, %s, %s::shardman.worker_node_status, %s, %s)",
        (
            node.id,
            node.dsn,
            None if node.id == LORD else "active",
            node.id == LORD,
            Jsonb(options),
        ),
    )
