"""Transactions of a client over several nodes: all of it, or nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import shardman
from schema.bob import move_in
from shardman.nodes.status import read
from shardman.testing import eventually
from shardman.testing.cluster import Cluster

PARTS = "select coalesce(sum(n), 0) from (select count(*) as n from pg_prepared_xacts) x"


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> Cluster:
    """Accounts on three nodes, owned by an ordinary role, and another table beside them."""
    schema = """
    create table acc (id int primary key, n int not null check (n >= 0));
    insert into acc select i, 30 from generate_series(1, 60) i;
    """
    move_in(
        cluster, schema, ["select shardman.create_hash_partitions(1, 'app.acc', 'id', 6)"], "acc"
    )
    eventually("bob is let in", lambda: all(usage(cluster, n) for n in (0, 1, 2, 3)))
    return cluster


def bob(cluster: Cluster, node: int, **more: str) -> str:
    return psycopg.conninfo.make_conninfo(
        cluster.dsn(node), user="bob", password="b", options="-c search_path=app", **more
    )


def usage(cluster: Cluster, node: int) -> Any:
    return cluster.value(node, "select has_schema_privilege('bob', 'shardman', 'usage')")


@pytest.fixture
def db(nodes: Cluster) -> Iterator[shardman.Connection]:
    with shardman.connect(bob(nodes, 2)) as db:
        db.execute("update acc set n = 30 where id = any (%s)", (list(range(1, 61)),))
        db.commit()
        yield db
        db.rollback()
    assert prepared(nodes) == 0


def prepared(cluster: Cluster) -> int:
    return sum(cluster.value(n, PARTS) for n in (1, 2, 3))


def keys(cluster: Cluster) -> dict[int, int]:
    """A key on each node."""
    found = {}
    for id_ in range(1, 61):
        node = cluster.value(1, "select node from shardman.partition_of('app.acc', %s)", (id_,))
        found.setdefault(node, id_)
    return found


def values(cluster: Cluster, *ids: int) -> list[int]:
    return [cluster.value(1, "select n from app.acc where id = %s", (i,)) for i in ids]


def pay(db: Any, id_: int, n: int) -> Any:
    return db.execute("update acc set n = n + %s where id = %s", (n, id_))


def test_all_of_it_or_nothing(nodes: Cluster, db: shardman.Connection) -> None:
    a, b, c = (keys(nodes)[n] for n in (1, 2, 3))
    pay(db, a, -10), pay(db, b, 4), pay(db, c, 6)
    assert len(db.router.parts()) == 3
    assert values(nodes, a, b, c) == [30, 30, 30]
    db.commit()
    assert values(nodes, a, b, c) == [20, 34, 36]
    pay(db, a, -10), pay(db, b, 4)
    db.rollback()
    assert values(nodes, a, b, c) == [20, 34, 36]
