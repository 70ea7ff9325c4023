"""A node that has a part of a client's transaction dies for good between the two phases."""

from __future__ import annotations

import subprocess
import sys

import psycopg
import pytest

from client.test_transactions import DIES
from shardman.nodes.invariants import check
from shardman.testing import eventually
from shardman.testing.cluster import Cluster
from shardman.testing.plugin import ClusterFactory

BALANCE = 30
ANY_LEFT = "select count(*) from pg_prepared_xacts"
#: Keys on two nodes, of partitions each of which has its replica on a third one.
PAIRS = """
with copies as (
    select p.owner, r.owner as heir, substring(p.part_name from '_([0-9]+)$')::int as part
      from shardman.partitions p join shardman.partitions r on r.part_name = p.part_name and r.prv = p.owner
     where p.relation = 'acc' and p.prv is null and r.stale_since is null
), keys as (
    select (regexp_match(partition::text, '_([0-9]+)$'))[1]::int as part, min(i) as id
      from generate_series(1, 400) i cross join lateral shardman.partition_of('acc', i) group by 1
)
select a.owner, b.owner, ka.id, kb.id
  from copies a join copies b on a.owner <> b.owner and a.heir <> b.owner and b.heir <> a.owner
  join keys ka on ka.part = a.part join keys kb on kb.part = b.part order by 1, 2, 3, 4 limit 1
"""


@pytest.fixture(scope="module")
def nodes(module_cluster_factory: ClusterFactory) -> Cluster:
    cluster = module_cluster_factory(workers=4)
    cluster.sql(1, "create table acc (id int primary key, n int not null)")
    cluster.sql(1, "insert into acc select i, %s from generate_series(1, 400) i", (BALANCE,))
    for command in (
        "select shardman.create_hash_partitions(1, 'acc', 'id', 8)",
        "select shardman.set_replevel('acc', 1)",
    ):
        assert cluster.cmd(command).status in ("success", "done")
    cluster.sql(0, "insert into shardman.settings values ('failover_after', '2')")
    return cluster


def values(nodes: Cluster, through: int, *ids: int) -> list[int]:
    return [nodes.value(through, "select n from acc where id = %s", (i,)) for i in ids]


def settle(nodes: Cluster) -> None:
    """All nodes are back, and have as many primaries as before."""
    stale = "select count(*) from shardman.partitions where stale_since is not null"
    eventually(
        "no copy is stale", lambda: nodes.value(0, stale), until=lambda n: n == 0, seconds=90
    )
    for command in ("set_replevel('acc', 1)", "rebalance('acc')"):
        assert nodes.cmd(f"select shardman.{command}").status == "done"
    assert check(nodes.lord_dsn, data=True, patience=60) == []


def gone(nodes: Cluster, on: set[int]) -> None:
    eventually(
        f"nothing is prepared on {on}",
        lambda: sum(nodes.value(n, ANY_LEFT) for n in on),
        until=lambda left: left == 0,
        seconds=20,
    )


def test_channels_have_two_phases(nodes: Cluster) -> None:
    for node in (1, 2, 3, 4):
        assert nodes.value(
            node, "select shardman.prepared_arrives() and shardman.decisions_arrive()"
        )


def test_a_ticket_counts_for_its_transaction_and_role_only(nodes: Cluster) -> None:
    """Who writes down that he has committed decides on what he has prepared himself, and on nothing else."""
    with psycopg.connect(nodes.dsn(1)) as first, psycopg.connect(nodes.dsn(3)) as part:
        begins = "select shardman.first_part(%s, '{3}')"
        mine = first.execute(begins, ("0" * 32,)).fetchone()[0]  # type: ignore[index]
        ticket = part.execute("select shardman.other_part(%s)", (mine,)).fetchone()[0]  # type: ignore[index]
        part.rollback()
        node, xid, proof = ticket.split(":")
        assert node == "3"

        def found(gid: str, ticket: str, role: str = "postgres") -> list[str]:
            with first.transaction(force_rollback=True):
                first.execute("delete from shardman.client_decisions")
                wrote = (
                    "insert into shardman.client_decisions (gid, role, parts) values (%s, %s, %s)"
                )
                first.execute(wrote, (gid, role, [ticket]))
                decided = "select array(select shardman.parts_decided(3, %s))"
                return list(first.execute(decided, ([xid, "7"],)).fetchall()[0][0])

        assert found(mine, ticket) == [xid]
        assert found(f"{mine[:-1]}1", ticket) == []
        assert found(mine, f"3:7:{proof}") == []
        assert found(mine, f"4:{xid}:{proof}") == []
        assert found(mine, ticket, "mallory") == []
        first.execute("create role mallory")
        first.execute("grant usage on schema shardman to mallory")
        first.execute("set local role mallory")
        with pytest.raises(psycopg.errors.InvalidTransactionState):
            first.execute("select shardman.decide(%s, %s)", (mine, [ticket]))
        first.rollback()


@pytest.mark.parametrize("who", ["first", "other", "both"])
@pytest.mark.parametrize("at", ["_prepare", "_decide"])
def test_all_of_it_or_nothing(nodes: Cluster, at: str, who: str) -> None:
    first, other, a, b = nodes.sql(0, PAIRS)[0]
    dead = {"first": {first}, "other": {other}, "both": {first, other}}[who]
    alive = {1, 2, 3, 4} - dead
    through = min(alive - {first, other})
    changed = 5 if at == "_decide" else 0
    after = [BALANCE - changed, BALANCE + changed]
    nodes.sql(through, "update acc set n = %s", (BALANCE,))
    nodes.stop_lord()
    subprocess.run(
        [sys.executable, "-c", DIES, nodes.dsn(through), at, str(a), str(b)], check=True, timeout=60
    )
    for node in dead:
        nodes.kill_node(node)
    nodes.start_lord()
    eventually(
        "all of it or nothing",
        lambda: values(nodes, through, a, b),
        until=lambda found: found == after,
        seconds=60,
        tolerate=psycopg.Error,
    )
    gone(nodes, alive)
    for node in dead:
        nodes.start_node(node)
    settle(nodes)
    gone(nodes, dead)
    assert values(nodes, through, a, b) == after
