"""set_partitions_count: what it refuses, and where copies go that become one."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from shardman.commands.base import Facts
from shardman.commands.set_partitions_count import SetPartitionsCount
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster, Copy, Node, Table
from shardman.model.splitting import Brought, gather


def cluster(*places: tuple[int, ...]) -> Cluster:
    """A table whose partitions have copies on these nodes, the primary's first."""
    return Cluster(
        id="abcdef",
        nodes={0: Node(0, "", None, lord=True), **{n: Node(n, "", "active") for n in (1, 2, 3, 4)}},
        tables={"acc": Table("acc", "id", len(places), 1)},
        copies=tuple(
            Copy(f"acc_{k}", node, before, after, "acc")
            for k, nodes in enumerate(places)
            for before, node, after in zip((None, *nodes), nodes, (*nodes[1:], None), strict=False)
        ),
    )


def facts(found: Cluster, **more: Any) -> Facts:
    key = {"keys": [{"identity": True}], "indexes": []}
    return Facts(
        found,
        7,
        {
            **{f"obstacles {n}": [] for n in found.nodes},
            "redefined": {"definition": {"relation": "acc", **key}, "create_sql": ""},
            **more,
        },
    )


def test_what_is_split_stays_where_it_is() -> None:
    found = gather(cluster((1, 2), (2, 3)), "acc", 2, 6)
    assert found.moves == ()
    assert found.copies == ((1, 2), (2, 3)) * 3


def test_what_becomes_one_comes_together() -> None:
    found = gather(cluster((1, 2), (3, 4), (2, 1), (1, 3)), "acc", 4, 2)
    assert found.copies == ((1, 2), (3, 4))
    assert found.moves == (
        # A replica of its own becomes the primary.
        Brought("acc_2", 1, None),
        # The primary goes to where nothing of it is, and then changes places.
        Brought("acc_3", 4, 1),
        Brought("acc_3", 3, None),
    )


def test_different_numbers_of_replicas_do_not_become_one() -> None:
    with pytest.raises(UserError, match="acc_1 has 0 replicas and acc_0 1"):
        gather(cluster((1, 2), (2,)), "acc", 2, 1)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_only_multiples_and_divisors(count: int) -> None:
    with pytest.raises(UserError) as error:
        SetPartitionsCount("acc", count).plan(facts(cluster((1,), (2,))))
    assert error.value.code is Code.TABLE_UNSUITABLE


def test_all_nodes_take_part() -> None:
    with pytest.raises(UserError, match="node 3 cannot be reached") as error:
        SetPartitionsCount("acc", 4).plan(facts(cluster((1,), (2,)), **{"obstacles 3": None}))
    assert error.value.code is Code.NODE_UNREACHABLE


def test_colocated_tables_are_refused() -> None:
    alone = cluster((1,), (2,))
    tables = {
        name: dataclasses.replace(alone.tables["acc"], relation=name, colocation=3)
        for name in ("acc", "bills")
    }
    grouped = dataclasses.replace(alone, tables=tables)
    with pytest.raises(UserError, match="acc is colocated with bills") as error:
        SetPartitionsCount("acc", 4).plan(facts(grouped))
    assert error.value.code is Code.TABLE_UNSUITABLE


def test_replicas_make_it_claim_the_channels() -> None:
    def claimed(found: Cluster) -> set[str]:
        return {c.name for c in SetPartitionsCount("acc", 4).claims(found)}

    assert "channels" in claimed(cluster((1, 2), (2, 1)))
    assert "channels" not in claimed(cluster((1,), (2,)))
