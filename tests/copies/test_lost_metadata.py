"""What carries the metadata to a worker is dropped or changed by hand: it is made again, with its contents."""

from __future__ import annotations

from itertools import count

import psycopg
import pytest
from psycopg import sql

from shardman import names
from shardman.testing.cluster import Cluster
from shardman.testing.plugin import ClusterFactory
from shardman.testing.waiting import eventually

WORKER = 2
numbers = count()
ROWS = "select name, value from shardman.settings order by 1"


@pytest.fixture(scope="module")
def cluster(module_cluster_factory: ClusterFactory) -> Cluster:
    return module_cluster_factory(workers=2)


def cluster_id(cluster: Cluster) -> str:
    return str(cluster.value(0, "select cluster from shardman.local"))


def slot(cluster: Cluster) -> str:
    return names.meta_slot(cluster_id(cluster), WORKER)


def change(cluster: Cluster) -> None:
    """Changes metadata on the lord: one row comes, one is another, one goes."""
    n = next(numbers)
    with cluster.connect(0) as lord:
        lord.execute("insert into shardman.settings values (%s, 'new')", (f"test_{n}",))
        lord.execute("insert into shardman.settings values (%s, 'goes')", (f"gone_{n}",))
        lord.execute("delete from shardman.settings where name = %s", (f"gone_{n - 1}",))


def follows(cluster: Cluster) -> None:
    """The worker has what the lord has, and hears of what comes."""
    for _ in range(2):
        eventually(
            "the worker has the lord's metadata",
            lambda: cluster.sql(WORKER, ROWS) == cluster.sql(0, ROWS),
            seconds=40,
        )
        change(cluster)


def drop_slot(cluster: Cluster) -> None:
    name = slot(cluster)
    with cluster.connect(0) as lord:

        def gone() -> bool:
            lord.execute(
                "select pg_terminate_backend(active_pid) from pg_replication_slots"
                " where slot_name = %s and active_pid is not null",
                (name,),
            )
            try:
                lord.execute("select pg_drop_replication_slot(%s)", (name,))
            except psycopg.errors.ObjectInUse:
                return False
            return True

        eventually("the slot is dropped", gone, every=0.02)


def drop_subscription(cluster: Cluster) -> None:
    # With its slot, as stock PostgreSQL does.
    drop = sql.SQL("drop subscription {}").format(sql.Identifier(slot(cluster)))
    cluster.sql(WORKER, drop)


def drop_publication(cluster: Cluster) -> None:
    name = sql.Identifier(names.meta_publication(cluster_id(cluster)))
    cluster.sql(0, sql.SQL("drop publication {}").format(name))


def narrow_publication(cluster: Cluster) -> None:
    name = sql.Identifier(names.meta_publication(cluster_id(cluster)))
    statement = sql.SQL("alter publication {} drop table shardman.settings").format(name)
    cluster.sql(0, statement)


@pytest.mark.parametrize(
    "harm", [drop_slot, drop_subscription, drop_publication, narrow_publication]
)
def test_what_is_lost_is_made_again(cluster: Cluster, harm: object) -> None:
    assert callable(harm)
    follows(cluster)
    harm(cluster)
    change(cluster)
    follows(cluster)
    assert cluster.cmd("select shardman.set_zone(%s, 'here')", (WORKER,)).status == "success"
