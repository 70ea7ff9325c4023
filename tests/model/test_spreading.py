"""Spreading all copies of a table, and emptying a node: from any layout to one that is right."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from tests.model.test_replicas import applied, cluster_of

from shardman.model.cluster import Cluster, Node
from shardman.model.draining import drain
from shardman.model.placement import Move, ready
from shardman.model.replicas import changes
from shardman.model.spreading import spread_out

Owners = dict[str, list[int]]


def zoned(cluster: Cluster, zones: dict[int, str]) -> Cluster:
    nodes = {n.id: replace(n, zone=zones.get(n.id)) for n in cluster.nodes.values()}
    return replace(cluster, nodes=nodes)


@st.composite
def layouts(draw: st.DrawFn, stale: bool = True) -> Cluster:
    """Up to three copies of each partition, nodes in two zones, three, or none."""
    nodes = draw(st.integers(2, 6))
    order = st.permutations(range(1, nodes + 1))
    owners = st.tuples(order, st.integers(1, min(3, nodes))).map(lambda t: list(t[0][: t[1]]))
    behind = draw(st.frozensets(st.integers(1, nodes), max_size=1)) if stale else frozenset()
    cluster = cluster_of(nodes, draw(st.lists(owners, min_size=1, max_size=12)), behind)
    count = draw(st.integers(0, 3))
    return zoned(cluster, {n: f"z{n % count}" for n in range(1, nodes + 1)} if count else {})


def lists_of(cluster: Cluster) -> Owners:
    return {p: [c.owner for c in cluster.succession(p)] for p in cluster.primaries}


def done(cluster: Cluster, moves: list[Move]) -> Owners:
    """The copies after the moves, one after the other as they may begin; each must be possible."""
    lists = lists_of(cluster)
    left = list(moves)
    while left:
        move = ready(left, [])[0]
        left.remove(move)
        owners = lists[move.part_name]
        assert move.via is None or move.via == owners[0]
        if move.kind == "switch":
            assert owners[0] == move.src and move.dest not in cluster.stale_replicas_of(
                move.part_name
            )
            k = owners.index(move.dest)
            owners[0], owners[k] = owners[k], owners[0]
        elif move.kind == "drop":
            assert move.src in owners[1:], "a primary is not dropped"
            owners.remove(move.src)
        else:
            assert move.dest not in owners
            k = owners.index(move.src)
            assert (k == 0) == (move.via is None)
            owners[k] = move.dest
    return lists


def crowded(lists: Owners, cluster: Cluster) -> int:
    """How many copies share a zone with another copy of their partition."""
    shared = 0
    for owners in lists.values():
        zones = Counter(cluster.zones[n] for n in owners)
        shared += sum(count - 1 for count in zones.values())
    return shared


def gap(held: Counter[int], nodes: list[int]) -> int:
    return max(held[n] for n in nodes) - min(held[n] for n in nodes)


@given(layouts())
def test_copies_are_spread_and_none_is_lost(cluster: Cluster) -> None:
    nodes = [n.id for n in cluster.workers]
    before = lists_of(cluster)
    placed = spread_out(cluster, "acc", nodes)
    after = done(cluster, list(placed.moves))
    for part, owners in after.items():
        assert len(owners) == len(before[part]) == len(set(owners))
    assert crowded(after, cluster) <= crowded(before, cluster)
    primaries = Counter(owners[0] for owners in after.values())
    assert {n: load.copies for n, load in placed.after.nodes.items()} == {
        n: primaries[n] for n in nodes
    }
    assert gap(primaries, nodes) <= max(1, gap(Counter(o[0] for o in before.values()), nodes))


@given(layouts(stale=False))
def test_without_zones_primaries_are_even_and_never_move_for_nothing(cluster: Cluster) -> None:
    cluster = zoned(cluster, {})
    nodes = [n.id for n in cluster.workers]
    after = done(cluster, list(spread_out(cluster, "acc", nodes).moves))
    assert gap(Counter(owners[0] for owners in after.values()), nodes) <= 1
    again = cluster_of(len(nodes), list(after.values()))
    assert not [m for m in spread_out(again, "acc", nodes).moves if m.kind == "switch"]


@given(layouts())
def test_what_is_spread_stays(cluster: Cluster) -> None:
    nodes = [n.id for n in cluster.workers]
    stale = frozenset(n for p in cluster.primaries for n in cluster.stale_replicas_of(p))
    after = done(cluster, list(spread_out(cluster, "acc", nodes).moves))
    again = replace(cluster_of(len(nodes), list(after.values()), stale), nodes=cluster.nodes)
    left = spread_out(again, "acc", nodes).moves
    assert not [m for m in left if m.via is None and m.kind == "move"] or stale


def test_a_node_that_is_back_gets_primaries_without_a_copy() -> None:
    cluster = cluster_of(3, [[2, 1], [2, 3], [3, 1], [3, 2], [2, 1], [3, 1]])
    moves = spread_out(cluster, "acc", [1, 2, 3]).moves
    assert [m.kind for m in moves if m.via is None] == ["switch", "switch"]


def test_zones_are_separated() -> None:
    cluster = zoned(cluster_of(4, [[1, 2], [3, 4]]), {1: "a", 2: "a", 3: "b", 4: "b"})
    after = done(cluster, list(spread_out(cluster, "acc", [1, 2, 3, 4]).moves))
    assert crowded(after, cluster) == 0


def test_by_bytes_a_switch_helps_too() -> None:
    cluster = cluster_of(2, [[1, 2], [1, 2], [1, 2]])
    sizes = {"acc_0": 100, "acc_1": 60, "acc_2": 40}
    moves = spread_out(cluster, "acc", [1, 2], "bytes", sizes).moves
    assert moves == (Move("acc_0", 1, 2, 100, kind="switch"),)


@given(layouts(), st.integers(1, 3))
def test_new_replicas_go_to_other_zones_where_they_can(cluster: Cluster, level: int) -> None:
    nodes = [n.id for n in cluster.workers]
    alone = cluster_of(len(nodes), [o[:1] for o in lists_of(cluster).values()])
    alone = replace(alone, nodes=cluster.nodes)
    after = applied(alone, changes(alone, "acc", level, nodes, nodes))
    zones = {alone.zones[n] for n in nodes}
    for owners in after.values():
        assert len({alone.zones[n] for n in owners}) == min(len(zones), len(owners))


@given(layouts(), st.data())
def test_a_drained_node_is_empty(cluster: Cluster, data: st.DataObject) -> None:
    nodes = [n.id for n in cluster.workers]
    leaving = data.draw(st.sampled_from(nodes))
    before = lists_of(cluster)
    after = done(cluster, drain(cluster, leaving, nodes))
    for part, owners in after.items():
        following = {cluster.primary(part).owner, *cluster.replicas_of(part)}
        if leaving in owners:
            # The last copy that is up to date, and everywhere else an old one.
            assert following == {leaving} and set(nodes) == set(before[part])
        elif leaving in before[part]:
            room = set(nodes) - set(before[part]) and leaving in following
            assert len(owners) == len(before[part]) - (0 if room else 1)


def test_nothing_is_placed_on_a_node_that_is_drained() -> None:
    cluster = cluster_of(3, [[1, 2]])
    nodes = {**cluster.nodes, 3: Node(3, "host=n3", "active", draining=True)}
    assert [n.id for n in replace(cluster, nodes=nodes).places] == [1, 2]


def test_the_second_pass_knows_what_the_first_has_moved() -> None:
    """Hypothesis found it: a partition that had moved was looked for where it had been."""
    cluster = cluster_of(4, [[1]] * 7 + [[1, 4]] * 4)
    cluster = zoned(cluster, {n: f"z{n % 2}" for n in range(1, 5)})
    after = done(cluster, list(spread_out(cluster, "acc", range(1, 5)).moves))
    primaries = Counter(owners[0] for owners in after.values())
    assert max(primaries.values()) - min(primaries[n] for n in range(1, 5)) <= 1
