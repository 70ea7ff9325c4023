"""Replicas: made, moved and dropped while the application writes; never fewer than asked for."""

from __future__ import annotations

from threading import Timer

import psycopg
import pytest

from shardman.nodes.invariants import check
from shardman.testing.cluster import Cluster
from shardman.testing.load import Bank, Load, make_bank

SIZE = 600
LIST = """
with recursive list (part_name, owner, nxt, n) as (
    select part_name, owner, nxt, 1 from shardman.partitions where part_name = %(p)s and prv is null
    union all
    select p.part_name, p.owner, p.nxt, n + 1
      from list l join shardman.partitions p on p.part_name = l.part_name and p.owner = l.nxt)
select owner from list order by n
"""


@pytest.fixture(scope="module")
def bank(cluster: Cluster) -> Bank:
    """Accounts and marks, six partitions each, spread over three workers."""
    return make_bank(cluster, SIZE)


def succession(cluster: Cluster, part: str) -> list[int]:
    return [r[0] for r in cluster.sql(0, LIST, {"p": part})]


def other(cluster: Cluster, part: str) -> int:
    """A worker without a copy."""
    return min(set(cluster.worker_dsns) - set(succession(cluster, part)))


def ok(cluster: Cluster, query: str, *params: object) -> str:
    done = cluster.cmd(query.encode(), params)
    assert done.status in ("success", "done"), done
    return done.result or ""


def waited_for(cluster: Cluster) -> None:
    """Commits on every node wait for all replicas of its primaries, and for no other."""
    for node in cluster.worker_dsns:
        wanted = cluster.sql(
            0,
            "select distinct r.owner from shardman.partitions p"
            " join shardman.partitions r using (part_name)"
            " where p.prv is null and r.prv is not null and p.owner = %s",
            (node,),
        )
        found = cluster.sql(
            node, "select application_name from pg_stat_replication where sync_state = 'sync'"
        )
        assert {int(r[0].rpartition("_")[2]) for r in found} == {r[0] for r in wanted}


def test_a_replica_follows_its_primary(cluster: Cluster, bank: Bank) -> None:
    dest = other(cluster, "accounts_0")
    ok(cluster, "select shardman.create_replica('accounts_0', %s)", dest)
    assert succession(cluster, "accounts_0")[1:] == [dest]
    cluster.sql(1, "update accounts set touched = touched + 1")
    # Synchronous: what is acknowledged is there.
    assert cluster.value(dest, "select min(touched) from accounts_0_data") == 1
    cluster.sql(2, "delete from accounts where id = (select min(id) from accounts_0)")
    cluster.sql(
        3,
        "insert into accounts (id) select i from generate_series(1, 600) i on conflict do nothing",
    )
    assert cluster.value(1, "select count(*) from accounts") == SIZE
    assert check(cluster.lord_dsn, data=True) == []
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction, match="is a replica"):
        cluster.sql(dest, "delete from accounts_0_data")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        cluster.sql(dest, "truncate accounts_0_data")


def test_a_replica_is_fed_while_its_table_is_locked(cluster: Cluster, bank: Bank) -> None:
    """As DDL locks it, while it waits for commits that wait for replicas."""
    primary, replica = succession(cluster, "accounts_0")
    with cluster.connect(replica, autocommit=False) as holder:
        holder.execute("lock table only accounts in access exclusive mode")
        # A commit that waited for the lock would end when the replica is given up, or by this.
        rescue = Timer(10, holder.rollback)
        rescue.start()
        cluster.sql(primary, "update accounts_0_data set touched = touched + 1")
        rescue.cancel()
        copy = cluster.sql(primary, "select id, touched from accounts_0_data order by 1")
        assert cluster.sql(replica, "select id, touched from accounts_0_data order by 1") == copy


def test_refused(cluster: Cluster, bank: Bank) -> None:
    for query, error in (
        ("select shardman.create_replica('accounts_0', 9)", "there is no worker 9"),
        ("select shardman.create_replica('nowhere_0', 1)", "there is no partition nowhere_0"),
        ("select shardman.switch_primary('accounts_1', 9)", "node 9 has no replica of accounts_1"),
        ("select shardman.rm_replica('accounts_1', 9)", "node 9 has no replica of accounts_1"),
        ("select shardman.set_replevel('nowhere', 1)", "nowhere is not a sharded table"),
    ):
        done = cluster.cmd(query.encode())
        assert done.status == "failed" and error in (done.error or ""), done
    for node in succession(cluster, "accounts_0"):
        done = cluster.cmd("select shardman.create_replica('accounts_0', %s)", (node,))
        assert "has a copy of accounts_0 already" in (done.error or "")


def test_levels_go_up_and_down_under_load(cluster: Cluster, bank: Bank) -> None:
    work = [bank.increment, bank.read_then_write, bank.transfer]
    before = cluster.value(1, "select sum(touched) from accounts")
    with Load(list(cluster.worker_dsns.values()), work, workers=6, marks="marks") as load:
        for level in (2, 1):
            for table in ("accounts", "marks"):
                ok(cluster, "select shardman.set_replevel(%s, %s)", table, level)
                wanted = cluster.sql(
                    0,
                    "select part_name, count(*) from shardman.partitions where relation = %s group by 1",
                    (table,),
                )
                assert {n for _, n in wanted} == {level + 1}
                waited_for(cluster)
        # A primary moves with its replicas, a replica moves.
        part = "accounts_1"
        ok(cluster, "select shardman.move_part(%s, %s)", part, other(cluster, part))
        ok(
            cluster,
            "select shardman.move_part(%s, %s, %s)",
            part,
            other(cluster, part),
            succession(cluster, part)[1],
        )
        # A primary and its replica change places, and again.
        for _ in range(4):
            ok(
                cluster,
                "select shardman.switch_primary(%s, %s)",
                part,
                succession(cluster, part)[1],
            )
        waited_for(cluster)
    assert load.errors == []
    assert load.acknowledged > 100
    for node in cluster.worker_dsns:
        assert cluster.value(node, "select sum(touched) from accounts") == before + load.added
        assert cluster.value(node, "select sum(balance) from accounts") == SIZE * 1000
    told = {m for t in load.tallies for m in t.inserted}
    assert {r[0] for r in cluster.sql(2, "select id from marks")} == told
    assert check(cluster.lord_dsn, data=True, patience=10) == []


def test_nothing_stays_of_replicas_that_were_dropped(cluster: Cluster, bank: Bank) -> None:
    for table in ("accounts", "marks"):
        ok(cluster, "select shardman.set_replevel(%s, 0)", table)
    for node in cluster.worker_dsns:
        assert cluster.value(node, "show synchronous_standby_names") == ""
        assert (
            cluster.sql(
                node, "select name from shardman.our_objects where channel_from is not null"
            )
            == []
        )
    assert check(cluster.lord_dsn, data=True) == []
