"""Roles that use the cluster's tables are compared between nodes; status and check say what mends them."""

from __future__ import annotations

import pytest

from shardman.nodes.invariants import check
from shardman.nodes.status import read
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

NODES = (0, 1, 2, 3)
ANN = '"Ann ""ö"".B"'


@pytest.fixture(scope="module")
def acc(cluster: Cluster) -> Cluster:
    """A sharded and a shared table, whose users do not all have rights by their own name."""
    cluster.sql(0, "insert into shardman.settings values ('sync_roles', 'off')")
    for node in NODES:
        cluster.sql(
            node,
            f"create role {ANN} login password 'a'; create role clerks; grant clerks to {ANN};"
            " create role reader".encode(),
        )
    cluster.sql(1, "create table acc (id int primary key); create table kind (id int primary key)")
    cluster.sql(1, "grant select on acc to clerks; grant select on kind to reader")
    for command in (
        "select shardman.create_hash_partitions(1, 'acc', 'id', 3)",
        "select shardman.create_shared_table('kind', 1)",
    ):
        assert cluster.cmd(command).status == "success"
    return cluster


def told(cluster: Cluster) -> dict[str, str]:
    """What status says of roles, by subject."""
    return {
        f.subject: f"{f.what} ({f.hint})"
        for f in read(cluster.lord_dsn).problems
        if f.subject.startswith("role ")
    }


def test_what_differs_is_named_with_what_mends_it(acc: Cluster) -> None:
    assert check(acc.lord_dsn, patience=60) == []
    acc.sql(2, f"revoke clerks from {ANN}".encode())
    acc.sql(3, "alter role clerks set work_mem = '7MB'; alter role clerks set app.key = 'hidden'")
    acc.sql(1, "alter role clerks createdb")
    found = told(acc)
    assert found.keys() == {f"role clerks on node {n}" for n in (1, 2, 3)}, found
    assert (
        'its members differ from those of most nodes: lacks Ann "ö".B'
        in found["role clerks on node 2"]
    )
    assert "work_mem 7MB" in found["role clerks on node 3"]
    assert "hidden" not in str(found)
    assert "lacks nocreatedb; has createdb" in found["role clerks on node 1"]
    assert all("shardman sync-roles --role clerks" in what for what in found.values())
    for finding in check(acc.lord_dsn, patience=0):
        assert finding.subject in found, finding
    for role in ("clerks", 'Ann "ö".B'):
        done = acc.cmd("select shardman.sync_roles(role => %s)", (role,))
        assert done.status in ("success", "done"), done
    eventually("nothing is told", lambda: told(acc) == {}, seconds=60, after=lambda: told(acc))
    assert check(acc.lord_dsn, patience=60) == []


def test_a_role_that_a_node_lacks(acc: Cluster) -> None:
    """The lord's, which is no worker, need not have those who use shared tables only."""
    for node in (0, 3):
        acc.sql(node, "alter role reader rename to former_reader")
    found = told(acc)
    assert found.keys() == {"role reader on node 3"}, found
    assert "lacks the role; has no such role" in found["role reader on node 3"]
