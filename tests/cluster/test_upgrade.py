"""A shardlord of a new version finds nodes that have the schema of an older one."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from shardman.pg.invariants import check
from shardman.testing.cluster import Cluster


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with closing(Cluster(workers=1)) as cluster:
        yield cluster


def grow_old(cluster: Cluster, node: int) -> None:
    """As an older version would have left it: something lacks, a view has other columns."""
    cluster.sql(node, "comment on schema shardman is 'older'")
    cluster.sql(node, "drop function shardman.has_copy(text, int)")
    cluster.sql(node, "drop view shardman.status_failovers")
    cluster.sql(node, "create view shardman.status_failovers as select 1 as something")


def test_workers_are_brought_up_to_date(cluster: Cluster) -> None:
    cluster.stop_lord()
    grow_old(cluster, 1)
    cluster.start_lord()
    until = time.monotonic() + 30
    has = "select to_regprocedure('shardman.has_copy(text, int)') is not null"
    while not cluster.value(1, has):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert cluster.sql(1, "select reason from shardman.status_failovers") == []
    assert check(cluster.lord_dsn) == []


def test_a_shardlord_of_another_version_does_not_act(cluster: Cluster) -> None:
    cluster.stop_lord()
    grow_old(cluster, 0)
    lord = [sys.executable, "-m", "shardman", "lord", cluster.lord_dsn]
    refused = subprocess.run(lord, capture_output=True, text=True, check=False, timeout=60)
    assert refused.returncode == 1
    assert "Run shardman init" in refused.stderr
    init = [sys.executable, "-m", "shardman", "init", cluster.lord_dsn]
    subprocess.run(init, check=True, capture_output=True, timeout=60)
    cluster.start_lord()
    assert cluster.cmd("select shardman.set_zone(1, 'a')").status == "success"
