"""A shardlord of a new version finds nodes that have the schema of an older one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

from shardman.nodes.invariants import check
from shardman.nodes.status import read
from shardman.testing.cluster import Cluster
from shardman.testing.waiting import eventually

pytestmark = pytest.mark.server


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with closing(Cluster(workers=1)) as cluster:
        yield cluster


def grow_old(cluster: Cluster, node: int) -> None:
    """As an older version would have left it: something lacks, a view has other columns."""
    cluster.sql(node, "comment on schema shardman is 'older'")
    cluster.sql(node, "drop function shardman.has_copy(text, int)")
    cluster.sql(node, "drop view shardman.status_failovers cascade")
    cluster.sql(node, "create view shardman.status_failovers as select 1 as something")


def test_workers_are_brought_up_to_date(cluster: Cluster) -> None:
    cluster.stop_lord()
    grow_old(cluster, 1)
    cluster.start_lord()
    has = "select to_regprocedure('shardman.has_copy(text, int)') is not null"
    eventually("the worker has the new routine", lambda: cluster.value(1, has), seconds=30)
    assert cluster.sql(1, "select reason from shardman.status_failovers") == []
    assert check(cluster.lord_dsn) == []


def test_a_shardlord_of_another_version_does_not_act(cluster: Cluster) -> None:
    cluster.stop_lord()
    grow_old(cluster, 0)
    lord = [sys.executable, "-m", "shardman", "lord", cluster.lord_dsn]
    refused = subprocess.run(lord, capture_output=True, text=True, check=False, timeout=180)
    assert refused.returncode == 1
    assert "Run shardman init" in refused.stderr
    init = [sys.executable, "-m", "shardman", "init", cluster.lord_dsn]
    subprocess.run(init, check=True, capture_output=True, timeout=180)
    cluster.start_lord()
    assert cluster.cmd("select shardman.set_zone(1, 'a')").status == "success"


def test_a_worker_gets_tables_that_its_version_did_not_have(cluster: Cluster) -> None:
    """Neither the publication nor the subscription of an older version knows them."""
    cluster.stop_lord()
    name = cluster.value(0, "select format('shardman_meta_%s', cluster) from shardman.local")
    step = "(select min(cmd_id) from shardman.cmd_steps), 1, 1"
    cluster.sql(0, f"alter publication {name} drop table shardman.node_cleanings")
    cluster.sql(1, f"alter subscription {name}_1 refresh publication")
    cluster.sql(0, f"insert into shardman.node_cleanings values ({step}, 1)")
    cluster.sql(1, "comment on schema shardman is 'older'")
    init = [sys.executable, "-m", "shardman", "init", cluster.lord_dsn]
    subprocess.run(init, check=True, capture_output=True, timeout=180)
    cluster.start_lord()
    rows = "select count(*) from shardman.node_cleanings"
    eventually("the worker has the lord's row", lambda: cluster.value(1, rows) == 1)
    cluster.sql(0, "delete from shardman.node_cleanings")
    eventually("the worker follows", lambda: cluster.value(1, rows) == 0)
    assert cluster.cmd("select shardman.set_zone(1, 'b')").status == "success"
    assert cluster.value(1, "select zone from shardman.nodes where id = 1") == "b"
    assert check(cluster.lord_dsn) == []


def test_a_worker_that_cannot_be_brought_up_to_date_is_seen(cluster: Cluster) -> None:
    cluster.stop_lord()
    cluster.sql(1, "comment on schema shardman is 'older'")
    cluster.sql(1, "create view shardman.former as select 1 as a")
    cluster.sql(1, "create view public.mine as select * from shardman.former")
    cluster.start_lord()
    other = "has the schema of another version than the lord"
    assert other in [p.what for p in read(cluster.lord_dsn).problems]
    cluster.sql(1, "create table t (id int primary key)")
    refused = cluster.cmd("select shardman.create_hash_partitions(1, 't', 'id', 2)")
    assert "view mine depends on what it changes" in str(refused.error)
    assert cluster.value(1, "select a from public.mine") == 1
    cluster.sql(1, "drop view public.mine")
    # The command does it at once; without one it is done within a minute.
    assert (
        cluster.cmd("select shardman.create_hash_partitions(1, 't', 'id', 2)").status == "success"
    )
    eventually("no problem", lambda: read(cluster.lord_dsn).problems, until=lambda p: p == ())


def test_a_worker_of_another_version_is_in_no_other_s_way() -> None:
    with closing(Cluster(workers=3)) as cluster:
        cluster.sql(1, "create table t (id int primary key)")
        done = cluster.cmd("select shardman.create_hash_partitions(1, 't', 'id', 3)")
        assert done.status == "success", done
        cluster.stop_lord()
        cluster.sql(3, "comment on schema shardman is 'older'")
        cluster.sql(3, "create view shardman.former as select 1 as a")
        cluster.sql(3, "create view public.mine as select * from shardman.former")
        cluster.start_lord()
        moved = cluster.cmd(
            "select shardman.move_part(part_name, 3 - owner) from shardman.partitions"
            " where owner in (1, 2) order by 1 limit 1"
        )
        assert moved.status == "success", moved
