"""Bob, an ordinary role who owns tables in the schema app of every node: what tests of his do alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg
from psycopg.conninfo import make_conninfo

from shardman.pg.connection import SyncConnection
from shardman.testing.cluster import Cluster

NODES = (0, 1, 2, 3)
WORKERS = (1, 2, 3)
ROWS = 60


def move_in(cluster: Cluster, schema: str, commands: Sequence[str], table: str) -> None:
    """Makes bob and his tables on node 1, and runs commands.

    Args:
        schema: what he makes.
        table: one of his that all nodes have then, with ROWS rows.
    """
    for node in NODES:
        cluster.sql(node, "create role bob login password 'b'; create schema app authorization bob")
    with as_bob(cluster, 1) as bob:
        bob.execute(schema.encode())
    for query in commands:
        ok(cluster, query)
    # At once, on all nodes: nobody is without his table while the ways to it are made.
    assert [value(cluster, n, f"select count(*) from {table}") for n in NODES] == [ROWS] * 4


@contextmanager
def as_bob(cluster: Cluster, node: int, *, autocommit: bool = True) -> Iterator[SyncConnection]:
    dsn = make_conninfo(cluster.dsn(node), user="bob", password="b", options="-c search_path=app")
    with psycopg.connect(dsn, autocommit=autocommit) as conn:
        yield conn


def send(cluster: Cluster, node: int, *queries: str) -> None:
    """One after the other, as bob."""
    with as_bob(cluster, node) as bob:
        for query in queries:
            bob.execute(query.encode())


def value(cluster: Cluster, node: int, query: str, *params: object) -> object:
    """What bob is told by a node."""
    with as_bob(cluster, node) as bob:
        return (bob.execute(query.encode(), params or None).fetchone() or (None,))[0]


def ok(cluster: Cluster, query: str, *params: object) -> None:
    """A command that succeeds."""
    done = cluster.cmd(query, params)  # type: ignore[arg-type]
    assert done.status in ("success", "done"), done
