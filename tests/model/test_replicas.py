"""Where replicas go, and who takes over: from any cluster that is right, one that is right comes out."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from shardman.model.cluster import Cluster, Copy, Node, Table
from shardman.model.replicas import Change, changes
from shardman.model.succession import succeed


def linked(part: str, owners: list[int]) -> list[Copy]:
    """The copies of a partition, the primary's node first."""
    around = [None, *owners, None]
    return [Copy(part, owner, around[k], around[k + 2], "acc") for k, owner in enumerate(owners)]


def cluster_of(nodes: int, lists: list[list[int]]) -> Cluster:
    members = {0: Node(0, "host=lord", None, lord=True)}
    members |= {n: Node(n, f"host=n{n}", "active") for n in range(1, nodes + 1)}
    copies = [c for k, owners in enumerate(lists) for c in linked(f"acc_{k}", owners)]
    return Cluster("abcdef", members, {"acc": Table("acc", "id", len(lists), 1)}, tuple(copies))


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    nodes = draw(st.integers(1, 6))
    order = st.permutations(range(1, nodes + 1))
    owners = st.tuples(order, st.integers(1, nodes)).map(lambda t: list(t[0][: t[1]]))
    return cluster_of(nodes, draw(st.lists(owners, min_size=1, max_size=12)))


def applied(cluster: Cluster, todo: list[Change]) -> dict[str, list[int]]:
    """Lists of copies after the changes; fails when one cannot be."""
    lists = {p: [c.owner for c in cluster.succession(p)] for p in cluster.primaries}
    for change in todo:
        owners = lists[change.part_name]
        if change.add:
            assert change.node not in owners
            owners.append(change.node)
        else:
            assert change.node in owners[1:], "a primary is not dropped"
            owners.remove(change.node)
    return lists


@given(clusters(), st.integers(0, 4))
def test_every_partition_comes_to_its_level(cluster: Cluster, level: int) -> None:
    nodes = [n.id for n in cluster.workers]
    after = applied(cluster, changes(cluster, "acc", level, nodes))
    for owners in after.values():
        assert len(owners) == min(level, len(nodes) - 1) + 1
        assert len(set(owners)) == len(owners)


@given(clusters(), st.integers(0, 4))
def test_nothing_is_done_where_the_level_is_there(cluster: Cluster, level: int) -> None:
    nodes = [n.id for n in cluster.workers]
    after = list(applied(cluster, changes(cluster, "acc", level, nodes)).values())
    again = cluster_of(len(nodes), after)
    assert changes(again, "acc", level, nodes) == []


@given(st.integers(2, 6), st.integers(1, 40), st.integers(1, 3))
def test_replicas_are_spread(nodes: int, parts: int, level: int) -> None:
    level = min(level, nodes - 1)
    cluster = cluster_of(nodes, [[k % nodes + 1] for k in range(parts)])
    todo = changes(cluster, "acc", level, range(1, nodes + 1))
    held = Counter(dict.fromkeys(range(1, nodes + 1), 0))
    held.update(c.node for c in todo)
    assert max(held.values()) - min(held.values()) <= max(2, level)


@given(clusters(), st.data())
def test_who_takes_over(cluster: Cluster, data: st.DataObject) -> None:
    workers = [n.id for n in cluster.workers]
    dead = data.draw(st.sampled_from(workers))
    alive = [n for n in workers if n != dead and data.draw(st.booleans())]
    after = succeed(cluster, dead, alive)
    primaries = {p for p, c in cluster.primaries.items() if c.owner == dead}
    assert {*after.promoted, *after.stuck} == primaries
    for part, heir in after.promoted.items():
        assert heir in alive and heir in cluster.replicas_of(part)
        # The first of the list that is there.
        assert all(
            r not in alive
            for r in cluster.replicas_of(part)[: cluster.replicas_of(part).index(heir)]
        )
        assert heir in after.subscribers
    for part in after.stuck:
        assert not set(alive) & set(cluster.replicas_of(part))
    # No replica stays that does not hang on a living primary.
    left = {(c.part_name, c.owner) for c in cluster.copies} - set(after.dropped)
    assert all(
        owner in (after.promoted[part], dead) for part, owner in left if part in after.promoted
    )
    assert not any(owner == dead for part, owner in left if part not in primaries)
