"""Tables that tests of several files use through a client, and how bob, an ordinary role, comes to them."""

from __future__ import annotations

from typing import Any

import psycopg

from schema.bob import move_in
from shardman.testing import eventually
from shardman.testing.cluster import Cluster


def forty_rows(cluster: Cluster) -> Cluster:
    """`acc (id, n)` with 40 rows in six partitions."""
    cluster.sql(1, "create table acc (id bigint primary key, n int not null default 0)")
    done = cluster.cmd("select shardman.create_hash_partitions(1, 'acc', 'id', 6)")
    assert done.status == "success", done
    cluster.sql(1, "insert into acc select generate_series(1, 40)")
    for node in (2, 3):
        eventually("rows", lambda n=node: cluster.value(n, "select count(*) from acc") == 40)
    return cluster


def accounts(cluster: Cluster) -> Cluster:
    """Bob's `app.acc (id, n)`: 60 accounts with 30 each, on three nodes."""
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
