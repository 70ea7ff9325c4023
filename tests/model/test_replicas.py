"""Where replicas go, and who takes over: from any cluster that is right, one that is right comes out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from shardman.model.cluster import Cluster, Copy, Node, Table
from shardman.model.replicas import Change, changes
from shardman.model.succession import succeed

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def in_order(part: str, owners: list[int], stale: frozenset[int] = frozenset()) -> list[Copy]:
    """The copies of a partition, the primary's node first."""
    around = [None, *owners, None]
    return [
        Copy(
            part,
            owner,
            around[k],
            around[k + 2],
            "acc",
            LONG_AGO if k and owner in stale else None,
        )
        for k, owner in enumerate(owners)
    ]


def cluster_of(nodes: int, lists: list[list[int]], stale: frozenset[int] = frozenset()) -> Cluster:
    """A cluster of one table.

    Args:
        lists: the nodes of each partition's copies.
        stale: nodes whose replicas follow nobody.
    """
    members = {0: Node(0, "host=lord", None, lord=True)}
    members |= {n: Node(n, f"host=n{n}", "active") for n in range(1, nodes + 1)}
    copies = [c for k, owners in enumerate(lists) for c in in_order(f"acc_{k}", owners, stale)]
    return Cluster("abcdef", members, {"acc": Table("acc", "id", len(lists), 1)}, tuple(copies))


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    nodes = draw(st.integers(1, 6))
    order = st.permutations(range(1, nodes + 1))
    owners = st.tuples(order, st.integers(1, nodes)).map(lambda t: list(t[0][: t[1]]))
    stale = draw(st.frozensets(st.integers(1, nodes)))
    return cluster_of(nodes, draw(st.lists(owners, min_size=1, max_size=12)), stale)


def applied(cluster: Cluster, todo: list[Change]) -> dict[str, list[int]]:
    """The copies of each partition that are up to date after the changes; fails when one cannot be."""
    lists = {p: [cluster.primary(p).owner, *cluster.replicas_of(p)] for p in cluster.primaries}
    old = {p: list(cluster.stale_replicas_of(p)) for p in cluster.primaries}
    for change in todo:
        owners, stale = lists[change.part_name], old[change.part_name]
        if change.node in stale:
            stale.remove(change.node)
        elif not change.add:
            assert change.node in owners[1:], "a primary is not dropped"
            owners.remove(change.node)
        if change.add:
            assert change.node not in owners
            owners.append(change.node)
    return lists


@given(clusters(), st.integers(0, 4))
def test_every_partition_comes_to_its_level(cluster: Cluster, level: int) -> None:
    nodes = [n.id for n in cluster.workers]
    todo = changes(cluster, "acc", level, nodes, nodes)
    after = applied(cluster, todo)
    touched = {(c.part_name, c.node) for c in todo}
    for part, owners in after.items():
        # No old copy stays where there are enough.
        if level < len(nodes):
            assert {(part, n) for n in cluster.stale_replicas_of(part)} <= touched
        assert len(owners) == min(level, len(nodes) - 1) + 1
        assert len(set(owners)) == len(owners)


@given(clusters(), st.integers(0, 4))
def test_nothing_is_done_where_the_level_is_there(cluster: Cluster, level: int) -> None:
    nodes = [n.id for n in cluster.workers]
    after = list(applied(cluster, changes(cluster, "acc", level, nodes, nodes)).values())
    again = cluster_of(len(nodes), after)
    assert changes(again, "acc", level, nodes, nodes) == []


@given(st.integers(2, 6), st.integers(1, 40), st.integers(1, 3))
def test_replicas_are_spread(nodes: int, parts: int, level: int) -> None:
    level = min(level, nodes - 1)
    cluster = cluster_of(nodes, [[k % nodes + 1] for k in range(parts)])
    todo = changes(cluster, "acc", level, range(1, nodes + 1), range(1, nodes + 1))
    held = Counter(dict.fromkeys(range(1, nodes + 1), 0))
    held.update(c.node for c in todo)
    assert max(held.values()) - min(held.values()) <= max(2, level)


@given(clusters(), st.data(), st.booleans())
def test_what_is_not_proven_takes_over_only_where_loss_is_accepted(
    cluster: Cluster, data: st.DataObject, accept: bool
) -> None:
    dead = data.draw(st.sampled_from([n.id for n in cluster.workers]))
    alive = [n.id for n in cluster.workers if n.id != dead]
    unproven = {
        (part, r)
        for part in cluster.primaries
        for r in cluster.replicas_of(part)
        if data.draw(st.booleans())
    }
    after = succeed(cluster, dead, alive, accept, unproven)
    for part, order in after.promoted.items():
        proven = [r for r in cluster.replicas_of(part) if (part, r) not in unproven]
        assert order[0] == proven[0] if proven else accept and part in after.lossy
    for part in after.stuck:
        assert all((part, r) in unproven for r in cluster.replicas_of(part))


@given(clusters(), st.data(), st.booleans(), st.booleans())
def test_who_takes_over(cluster: Cluster, data: st.DataObject, sync: bool, accept: bool) -> None:
    cluster = replace(cluster, tables={"acc": replace(cluster.tables["acc"], sync=sync)})
    workers = [n.id for n in cluster.workers]
    dead = data.draw(st.sampled_from(workers))
    alive = [n for n in workers if n != dead and data.draw(st.booleans())]
    after = succeed(cluster, dead, alive, accept)
    primaries = {p for p, c in cluster.primaries.items() if c.owner == dead}
    assert {*after.promoted, *after.stuck} == primaries
    stale = set(after.stale)
    for part, order in after.promoted.items():
        heir, following = order[0], cluster.replicas_of(part)
        held = {c.owner for c in cluster.copies_of(part)}
        assert heir in alive and set(order) == held - {dead} and len(order) == len(set(order))
        safe = [r for r in following if r in alive] if sync else []
        # The first of those that lack nothing; another one only where it was asked for.
        assert heir == safe[0] if safe else accept
        assert (part in after.lossy) == (not safe)
        # Nobody else follows the old primary, or seems to follow the new one.
        assert {r for r in following if r != heir} == {n for p, n in stale if p == part}
        assert set(following) <= set(after.subscribers)
    for part in after.stuck:
        assert not (sync and set(alive) & set(cluster.replicas_of(part)))
        assert not any(p == part for p, _ in stale)
    for copy in cluster.copies_on(dead):
        if copy.prv is not None and copy.stale_since is None:
            assert (copy.part_name, dead) in stale
            assert cluster.primary(copy.part_name).owner in after.publishers
