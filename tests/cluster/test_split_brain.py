"""A node that lives and is cut off, with clients connected to it, acknowledges nothing that the rest of
the cluster does not keep.

Each cut is made under a load through all nodes, those that are cut off included. It lasts until the
shardlord has acted on it, or for longer than it would take it to; then the wires are healed, and every
acknowledged write must be there, exactly once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

from shardman.nodes.invariants import check
from shardman.testing.cluster import LORD, Cluster
from shardman.testing.load import Bank, Load, make_bank
from shardman.testing.network import Network
from shardman.testing.plugin import ClusterFactory
from shardman.testing.waiting import eventually

SIZE = 300
AFTER_S = 2
CUT_S = 6.0

Cut = Callable[[Network], None]

#: Node 1 has primaries; their replicas are on 2 and 3.
CUTS: dict[str, Cut] = {
    "from all": lambda net: net.isolate(1),
    "from the lord": lambda net: net.part(1, LORD),
    "from the lord, its answers": lambda net: net.cut(1, LORD),
    "from the lord, its questions": lambda net: net.cut(LORD, 1),
    "from its replica": lambda net: net.part(1, 2),
    "from its replica, the writes": lambda net: net.cut(1, 2),
    "from its replica, the acknowledgements": lambda net: net.cut(2, 1),
    "from all replicas": lambda net: net.isolate(1, of=[2, 3]),
    "from the lord and its replica": lambda net: net.isolate(1, of=[LORD, 2]),
}
SAMPLE = ("from all", "from its replica, the acknowledgements")


@pytest.fixture(scope="module")
def net(module_cluster_factory: ClusterFactory) -> Iterator[Network]:
    with Network(module_cluster_factory(workers=3, bare=True)) as network:
        yield network


@pytest.fixture(scope="module")
def bank(net: Network) -> Bank:
    bank = make_bank(net.cluster, SIZE)
    net.cluster.sql(
        0,
        "insert into shardman.settings values ('failover_after', %s), ('rebuild_after', '1')",
        (str(AFTER_S),),
    )
    for table in ("accounts", "marks"):
        done = net.cluster.cmd("select shardman.set_replevel(%s, 1)", (table,))
        assert done.status == "done", done
    return bank


def healthy(cluster: Cluster, seconds: float = 90) -> None:
    """Until every partition has its replica again and nothing is wrong."""
    short = (
        "select count(*) from shardman.partitions p where p.prv is null and not exists"
        " (select from shardman.partitions r where r.part_name = p.part_name and r.prv is not null"
        " and r.stale_since is null)"
    )
    eventually(
        "every partition has its replica",
        lambda: cluster.value(0, short),
        until=lambda missing: missing == 0,
        seconds=seconds,
    )
    assert check(cluster.lord_dsn, data=True, patience=seconds) == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", CUTS if os.environ.get("SHARDMAN_LONG") else SAMPLE)
def test_cut_off(net: Network, bank: Bank, name: str) -> None:
    cluster = net.cluster
    healthy(cluster)
    for table in ("accounts", "marks"):
        assert cluster.cmd("select shardman.rebalance(%s)", (table,)).status == "done"
    marks = {r[0] for r in cluster.sql(2, "select id from marks")}
    begun = cluster.value(2, "select sum(touched) from accounts")
    first = max((m % 10_000_000 for m in marks), default=0) + 1
    dsns = [cluster.dsn(n) for n in (1, 2, 3)]
    work = [bank.increment]
    with Load(dsns, work, workers=6, marks="marks", reconnect=True, first_mark=first) as load:
        time.sleep(1)
        CUTS[name](net)
        time.sleep(CUT_S)
        net.heal()
        time.sleep(2)
    assert load.errors == []
    healthy(cluster)
    unknown = sum(t.unknown for t in load.tallies)
    told = {m for t in load.tallies for m in t.inserted} | marks
    maybe = {m for t in load.tallies for m in t.maybe}
    for node in (1, 2, 3):
        rows = [r[0] for r in cluster.sql(node, "select id from marks")]
        assert len(rows) == len(set(rows))
        assert told <= set(rows) <= told | maybe, name
        touched = cluster.value(node, "select sum(touched) from accounts") - begun
        assert load.added <= touched <= load.added + unknown, name
        assert cluster.value(node, "select count(*) from accounts") == SIZE
    assert load.acknowledged > 50
