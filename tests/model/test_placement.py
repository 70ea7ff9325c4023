"""Placement: even, with the fewest moves, again and again the same."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from shardman.model.cluster import Copy
from shardman.model.placement import (
    TOLERANCE,
    Measure,
    Move,
    Placement,
    even,
    natural,
    ready,
    spread_of,
)


def copies_at(owners: list[int]) -> list[Copy]:
    return [Copy(f"acc_{k}", owner, None, None, "acc") for k, owner in enumerate(owners)]


def moved(copies: list[Copy], moves: tuple[Move, ...]) -> list[Copy]:
    """The copies after the moves; fails when a move takes what is not there."""
    where = {(c.part_name, c.owner): c for c in copies}
    for move in moves:
        copy = where.pop((move.part_name, move.src))
        assert (move.part_name, move.dest) not in where
        where[move.part_name, move.dest] = Copy(
            copy.part_name, move.dest, copy.prv, copy.nxt, copy.relation
        )
    return list(where.values())


layouts = st.integers(1, 7).flatmap(
    lambda n: st.tuples(st.just(n), st.lists(st.integers(1, n), max_size=40))
)


@given(layouts)
def test_by_number_is_even_with_the_fewest_moves(layout: tuple[int, list[int]]) -> None:
    nodes, owners = layout
    copies = copies_at(owners)
    placement = even(copies, range(1, nodes + 1))
    assert placement.after == spread_of(moved(copies, placement.moves), range(1, nodes + 1), {})
    assert placement.after.gap("number") <= 1
    # Whatever the even spread, what a node holds above its share must leave it.
    held = sorted((Counter(owners)[n] for n in range(1, nodes + 1)), reverse=True)
    share, odd = divmod(len(owners), nodes)
    surplus = sum(max(0, h - share - (k < odd)) for k, h in enumerate(held))
    assert len(placement.moves) == surplus


@given(layouts, st.sampled_from(["number", "bytes"]), st.data())
def test_again_there_is_nothing_to_do(
    layout: tuple[int, list[int]], measure: Measure, data: st.DataObject
) -> None:
    nodes, owners = layout
    copies = copies_at(owners)
    sizes = {c.part_name: data.draw(st.integers(0, 1000)) for c in copies}
    placement = even(copies, range(1, nodes + 1), measure=measure, sizes=sizes)
    again = even(moved(copies, placement.moves), range(1, nodes + 1), measure=measure, sizes=sizes)
    assert again.moves == ()
    assert again.before == placement.after


@given(layouts, st.data())
def test_by_bytes_never_widens_the_gap(layout: tuple[int, list[int]], data: st.DataObject) -> None:
    nodes, owners = layout
    copies = copies_at(owners)
    sizes = {c.part_name: data.draw(st.integers(0, 1000)) for c in copies}
    placement = even(copies, range(1, nodes + 1), measure="bytes", sizes=sizes)
    assert placement.after == spread_of(moved(copies, placement.moves), range(1, nodes + 1), sizes)
    assert placement.after.gap("bytes") <= placement.before.gap("bytes")
    # No single move from the fullest node to the emptiest would help.
    largest = max(sizes.values(), default=0)
    mean = sum(sizes.values()) / nodes
    assert placement.after.gap("bytes") <= max(largest, mean * TOLERANCE)


@given(layouts, st.randoms())
def test_the_order_of_input_does_not_matter(layout: tuple[int, list[int]], rng: object) -> None:
    nodes, owners = layout
    copies = copies_at(owners)
    shuffled = list(copies)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert even(copies, range(1, nodes + 1)) == even(shuffled, range(nodes, 0, -1))


def replicated() -> st.SearchStrategy[tuple[int, list[Copy]]]:
    """Partitions with up to three copies, never two on one node."""

    def build(nodes: int) -> st.SearchStrategy[tuple[int, list[Copy]]]:
        lists = st.lists(
            st.lists(st.integers(1, nodes), unique=True, min_size=1, max_size=3), max_size=20
        )
        return lists.map(
            lambda parts: (
                nodes,
                [
                    Copy(f"acc_{k}", owner, None if i == 0 else owners[i - 1], None, "acc")
                    for k, owners in enumerate(parts)
                    for i, owner in enumerate(owners)
                ],
            )
        )

    return st.integers(1, 6).flatmap(build)


@given(replicated())
def test_all_copies_can_be_spread_and_never_meet(layout: tuple[int, list[Copy]]) -> None:
    nodes, copies = layout
    placement = even(copies, range(1, nodes + 1))
    assert placement.after.gap("number") <= 1
    after = moved(copies, placement.moves)
    assert len({(c.part_name, c.owner) for c in after}) == len(copies)


@given(replicated(), st.sampled_from(["number", "bytes"]))
def test_primaries_keep_off_their_replicas(
    layout: tuple[int, list[Copy]], measure: Measure
) -> None:
    nodes, copies = layout
    replicas = [c for c in copies if c.prv is not None]
    primaries = [c for c in copies if c.prv is None]
    placement = even(
        primaries,
        range(1, nodes + 1),
        fixed=replicas,
        measure=measure,
        sizes={c.part_name: 10 for c in copies},
    )
    taken = {(c.part_name, c.owner) for c in replicas}
    assert not taken & {(m.part_name, m.dest) for m in placement.moves}


def test_a_new_node_gets_its_share() -> None:
    copies = copies_at([1, 2, 3] * 4)
    placement = even(copies, [1, 2, 3, 4])
    assert len(placement.moves) == 3
    assert {m.dest for m in placement.moves} == {4}
    assert [n.copies for n in placement.after.nodes.values()] == [3, 3, 3, 3]


def test_nowhere_to_go() -> None:
    nothing = Placement((), spread_of([], [], {}), spread_of([], [], {}))
    assert even([], []) == nothing
    assert even(copies_at([1, 1]), []) == nothing
    assert even(copies_at([7, 7]), [1, 2]).moves == ()


def test_by_number_sizes_do_not_matter_so_tables_are_spread_alike() -> None:
    sizes = {"acc_0": 500, "acc_1": 10, "acc_2": 300, "acc_3": 20}
    placement = even(copies_at([1, 1, 1, 1]), [1, 2], sizes=sizes)
    assert placement.moves == (Move("acc_0", 1, 2, 500), Move("acc_1", 1, 2, 10))


def test_one_big_partition_moves_alone_by_bytes() -> None:
    sizes = {"acc_0": 100, "acc_1": 40, "acc_2": 30, "acc_3": 30}
    placement = even(copies_at([1, 1, 1, 1]), [1, 2], measure="bytes", sizes=sizes)
    assert placement.moves == (Move("acc_0", 1, 2, 100),)
    assert placement.after.gap("bytes") == 0


@given(st.lists(st.builds(Move, st.text(max_size=3), st.integers(1, 6), st.integers(1, 6))))
def test_moves_at_once_share_no_node(moves: list[Move]) -> None:
    running: list[Move] = []
    left = list(moves)
    while left:
        batch = ready(left, running)
        assert batch, "with nothing running something can begin"
        nodes = [n for m in batch for n in {m.src, m.dest}]
        assert len(nodes) == len(set(nodes))
        assert ready(left, batch) == [] or not {
            n for m in ready(left, batch) for n in (m.src, m.dest)
        } & set(nodes)
        for move in batch:
            left.remove(move)


def test_natural_order() -> None:
    assert sorted(["a_10", "a_9", 'b"1"', "a_1"], key=natural) == ["a_1", "a_9", "a_10", 'b"1"']
