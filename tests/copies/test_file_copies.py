"""A copy of a node's files is not the node: what it takes is taken back, and it can be made inert."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from shardman import names
from shardman.errors import UserError
from shardman.local.server import Server, StopMode
from shardman.nodes.disarm import disarm
from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.load import Bank, make_bank
from shardman.testing.plugin import ClusterFactory
from shardman.testing.waiting import eventually

NODE = 2
STALE = "select count(*) from shardman.partitions where stale_since is not null"
ROBBED = """
select count(*) from shardman.commands where cmd_type = 'suspend_replicas'
   and status in ('success', 'done') and reason like '%went elsewhere%'"""
ROWS = "select name, value from shardman.settings order by 1"
PROBLEMS = "select subject, problem, hint from shardman.cluster_problems where subject = %s"

MINE = """
select i.inhparent::regclass::text from pg_inherits i join pg_class c on c.oid = i.inhrelid
 where c.relkind = 'r' and c.relispartition and c.relname ~ '^accounts_[0-9]+_data$' limit 1
"""


@pytest.fixture(scope="module")
def cluster(module_cluster_factory: ClusterFactory) -> Cluster:
    made = module_cluster_factory()
    made.sql(0, "insert into shardman.settings values ('failover_after', '20s')")
    return made


@pytest.fixture(scope="module")
def bank(cluster: Cluster) -> Bank:
    made = make_bank(cluster, 200)
    done = cluster.cmd("select shardman.set_replevel('accounts', 1)")
    assert done.status in ("success", "done"), done
    return made


def copy_files(cluster: Cluster, to: Path) -> Path:
    """The files of a node that is stopped."""
    subprocess.run(["cp", "-a", cluster.local.server(NODE).data, to], check=True)
    return to


@pytest.fixture
def copy(bank: Bank, cluster: Cluster) -> Iterator[Server]:
    """A copy of a node that was started before the node was started again."""
    original = cluster.local.server(NODE)
    data = cluster.local.directory / "copied"
    cluster.stop_node(NODE)
    try:
        copy_files(cluster, data)
        (data / "postmaster.pid").unlink(missing_ok=True)
        log = cluster.local.directory / "log" / "copy.log"
        # As a stock server has it: our own try again five times a second.
        settings = {**original.settings, "wal_retrieve_retry_interval": "5s"}
        made = replace(original, name="copy", data=data, log=log, port=None, settings=settings)
        made.start()
        slot = names.meta_slot(cluster.value(0, "select cluster from shardman.local"), NODE)
        eventually(
            "the copy has taken the slot",
            lambda: cluster.value(
                0, "select active from pg_replication_slots where slot_name = %s", (slot,)
            ),
            seconds=15,
        )
    finally:
        cluster.start_node(NODE)
    try:
        yield made
    finally:
        made.stop(StopMode.IMMEDIATE)
        shutil.rmtree(data)


def up_to_date(cluster: Cluster) -> None:
    eventually(
        "all copies are up to date",
        lambda: not cluster.value(0, STALE) and not cluster.commands_left(),
    )


def test_a_copy_beside_the_original(copy: Server, bank: Bank, cluster: Cluster) -> None:
    cluster.sql(0, "insert into shardman.settings values ('while_robbed', '1')")
    eventually(
        "the node has the metadata of now",
        lambda: cluster.sql(NODE, ROWS) == cluster.sql(0, ROWS),
        seconds=60,
    )
    eventually(
        "the lord says who took its place",
        lambda: "a copy of its server" in str(cluster.sql(0, PROBLEMS, (f"node {NODE}",))).lower(),
    )
    with pytest.raises(UserError, match="itself, no copy"):
        asyncio.run(disarm(cluster.dsn(NODE)))
    asyncio.run(disarm(copy.dsn))
    with psycopg.connect(copy.dsn, autocommit=True) as conn:
        left = (
            "select count(*) from pg_subscription union all"
            " select count(*) from pg_user_mappings where usename <> 'public' union all"
            " select count(*) from shardman.node_secrets"
        )
        assert conn.execute(left).fetchall() == [(0,), (0,), (0,)]
        with pytest.raises(psycopg.Error, match="this database is a copy"):
            conn.execute("select * from accounts")
        part = conn.execute(MINE).fetchone()
        assert part is not None
        # It takes writes, which wait for nobody.
        conn.execute("set statement_timeout = '5s'")
        conn.execute(sql.SQL("delete from {}").format(sql.Identifier(part[0])))
    assert cluster.value(1, "select count(*) from accounts") == 200


def test_what_was_taken_from_a_channel_is_noticed(bank: Bank, cluster: Cluster) -> None:
    """A copy that had the slot only while the node was away leaves nothing but a gap in the beats."""
    up_to_date(cluster)
    before = cluster.value(0, ROBBED)
    src, part = cluster.sql(
        0,
        "select p.owner, p.part_name from shardman.partitions p join shardman.partitions r using (part_name)"
        " where p.relation = 'accounts' and p.prv is null and r.owner = %s and r.prv = p.owner limit 1",
        (NODE,),
    )[0]
    slot = cluster.value(
        src,
        "select slot_name from pg_replication_slots where slot_name = format('shardman_%%s_%%s_%%s',"
        " (select cluster from shardman.local), %s::int, %s::int)",
        (src, NODE),
    )
    beat = "select beat from shardman.beats where src = %s"
    cluster.stop_node(NODE)
    try:
        begun = cluster.value(src, beat, (src,))
        write = sql.SQL("set synchronous_commit = local; update {} set balance = balance + 0")
        cluster.sql(src, write.format(sql.Identifier(part)))
        eventually("beats go on", lambda: cluster.value(src, beat, (src,)) > begun + 1)
        # As whoever reads from the slot does, and confirms what he got.
        cluster.sql(
            src, "select pg_replication_slot_advance(%s, pg_current_wal_insert_lsn())", (slot,)
        )
    finally:
        cluster.start_node(NODE)
    eventually("the replicas behind it are suspended", lambda: cluster.value(0, ROBBED) > before)
    up_to_date(cluster)
    assert cluster.sql(NODE, "select * from shardman.beat_gaps") == []
    assert check(cluster.lord_dsn, data=True) == []


def test_a_server_that_was_restored_to_an_earlier_time(bank: Bank, cluster: Cluster) -> None:
    data, former = cluster.local.server(NODE).data, cluster.local.directory / "former"
    cluster.stop_node(NODE)
    copy_files(cluster, former)
    cluster.start_node(NODE)
    # On a slow machine it was replaced meanwhile, and whoever waits for its replicas is ended.
    cluster.sql(
        NODE,
        "set synchronous_commit = local;"
        " create table public.filler as select repeat('x', 500) from generate_series(1, 5000)",
    )
    cluster.sql(NODE, "checkpoint")
    lsn = cluster.value(NODE, "select pg_current_wal_flush_lsn()::text")
    eventually(
        "the shardlord has seen it",
        lambda: cluster.value(
            0,
            "select flushed >= %s::pg_lsn - 300000 from shardman.sightings where node_id = %s",
            (lsn, NODE),
        ),
    )
    cluster.stop_node(NODE)
    shutil.rmtree(data)
    former.rename(data)
    cluster.start_node(NODE)
    eventually(
        "the lord sees what it is",
        lambda: "earlier time" in str(cluster.sql(0, PROBLEMS, (f"node {NODE}",))),
    )
    # Nothing is done on it, and others take over.
    done = cluster.cmd("select shardman.set_zone(%s, 'x')", (NODE,))
    assert done.status == "success", done
    owned = (
        "select count(*) from shardman.partitions"
        " where relation = 'accounts' and prv is null and owner = %s"
    )
    eventually("its partitions are taken over", lambda: cluster.value(0, owned, (NODE,)) == 0)
    cluster.sql(0, "select shardman.accept_node(%s)", (NODE,))
    eventually("it is in use again", lambda: cluster.sql(0, PROBLEMS, (f"node {NODE}",)) == [])
    # A takeover that is still under way may end a query that holds a partition of it.
    eventually("nothing is under way", lambda: not cluster.commands_left())
    assert cluster.value(1, "select count(*) from accounts") == 200
