"""The page in front of a cluster with three roles."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shardman.testing.cluster import Cluster
from web.viewing import PASSWORD, QUOTED, ROLES, Viewer, served


@pytest.fixture(scope="module")
def page(cluster: Cluster) -> Iterator[str]:
    """Where the page is, of a cluster with a sharded table, one of an odd name, and one replica."""
    for node in range(4):
        for role, group in ROLES.items():
            cluster.sql(
                node,
                f"create role {role} login password '{PASSWORD.replace(chr(39), chr(39) * 2)}'",
            )
            if group:
                cluster.sql(node, f"grant {group} to {role}")
    for name in ("acc", QUOTED):
        cluster.sql(1, f"create table {name} (id int primary key, n int not null default 0)")
        cluster.sql(1, f"insert into {name} select generate_series(1, 500)")
        done = cluster.cmd("select shardman.create_hash_partitions(1, %s, 'id', 6)", (name,))
        assert done.status == "success", done
    assert cluster.cmd("select shardman.set_replevel('acc', 1)").status == "done"
    with served(cluster) as base:
        yield base


@pytest.fixture
def viewer(page: str) -> Viewer:
    """Nobody yet."""
    return Viewer(page)
