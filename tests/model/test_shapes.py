"""What differs between nodes and between copies is found, and what to do about it is said."""

from __future__ import annotations

from shardman.model.shapes import Items, Shape, differences

PRIMARIES = {"acc_0": 1, "acc_1": 2, "acc_2": 3}
KEY, INDEX = "PRIMARY KEY (id)", "index USING btree (v)"


def copies(items: Items, *names: str, aspect: str = "indexes") -> Shape:
    return Shape("acc", "copy", aspect, items, names)


def found(*by_node: tuple[Shape, ...], busy: str = "") -> list[str]:
    shapes = dict(enumerate(by_node, start=1))
    return [str(f) for f in differences(shapes, PRIMARIES, {busy})]


def test_a_replica_is_compared_with_its_primary_and_a_primary_with_most() -> None:
    here, there = (copies((INDEX,), "acc_0", "acc_1"),), (copies((INDEX,), "acc_1"),)
    assert found(here, there) == []
    lacks = found((copies((INDEX,), "acc_0"), copies((), "acc_1")), there)
    (said,) = lacks
    assert said.startswith(
        "acc_1 on node 1: the replica's indexes differ from the primary's: lacks index USING btree (v)"
    )
    way = "create index on acc_1_data USING btree (v))"
    assert said.endswith(f"(On that node: set shardman.ddl = 'here'; {way}")
    # Most copies are replicas, and most primaries have it: what the replicas lack is what is wrong.
    most = found(
        (copies((INDEX,), "acc_0"), copies((), "acc_1", "acc_2")),
        (copies((INDEX,), "acc_1"), copies((), "acc_2")),
        (copies((INDEX,), "acc_2"), copies((), "acc_0")),
    )
    assert len(most) == 4
    assert all("the replica's indexes" in f for f in most)
    odd = found(
        (copies((KEY,), "acc_0", aspect="constraints"),),
        (copies((KEY,), "acc_1", aspect="constraints"),),
        (copies((KEY, KEY), "acc_2", aspect="constraints"),),
    )
    assert len(odd) == 1
    assert odd[0].startswith(
        "acc_2 on node 3: the primary's constraints differ from those of most partitions: has PRIMARY KEY (id)"
    )


def test_what_a_running_command_changes_is_left_out() -> None:
    here, there = (copies((INDEX,), "acc_0"), copies((), "acc_1")), (copies((INDEX,), "acc_1"),)
    assert found(here, there, busy="acc_1") == []
    assert found(here, there, busy="acc") == []
