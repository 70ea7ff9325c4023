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
            **{
                f"redefined {t}": {"definition": {"relation": t, **key}, "create_sql": ""}
                for t in found.tables
            },
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


def grouped(**refers: str) -> Cluster:
    """A group of acc, bills and cash, with foreign keys to others of them."""
    alone = cluster((1, 2), (2, 1))

    def definition(table: str) -> Any:
        keys = [{"to": refers[table], "to_columns": ["id"]}] if table in refers else []
        return {"foreign_keys": keys}

    tables = ("acc", "bills", "cash")
    return dataclasses.replace(
        alone,
        tables={t: Table(t, "id", 2, 1, definition(t), colocation=3) for t in tables},
        copies=tuple(
            dataclasses.replace(c, part_name=c.part_name.replace("acc", t), relation=t)
            for t in tables
            for c in alone.copies
        ),
    )


def test_colocated_tables_change_together() -> None:
    found = grouped(acc="bills", bills="cash")
    assert {c.name for c in SetPartitionsCount("acc", 4).claims(found)} == {
        *("membership", "channels", "table acc", "table bills", "table cash")
    }
    plan = SetPartitionsCount("bills", 4).plan(facts(found))
    (cut_over,) = (s for s in plan.prepare if s.kind == "split_cut_over")
    # Each behind those that it refers to.
    beside: Any = cut_over.args["beside"]
    assert [cut_over.args["relation"], *(t["relation"] for t in beside)] == ["cash", "bills", "acc"]
    assert [s.args["relation"] for s in plan.switch] == ["cash", "bills", "acc"]
    assert [s.args["relation"] for s in plan.prepare if s.kind == "split_log"] == [
        *("cash", "bills", "acc")
    ]
    clears = [s.args for s in plan.finish if s.kind == "split_clear"]
    assert [(c["relation"], c["beside"]) for c in clears] == [("cash", ["bills", "acc"])] * 5


def test_what_refers_in_a_circle_changes_too() -> None:
    plan = SetPartitionsCount("acc", 4).plan(facts(grouped(acc="bills", bills="acc", cash="cash")))
    assert {s.args["relation"] for s in plan.switch} == {"acc", "bills", "cash"}


def test_copies_that_do_not_lie_together_are_refused() -> None:
    found = grouped()
    apart = dataclasses.replace(
        found, copies=tuple(c for c in found.copies if (c.part_name, c.owner) != ("cash_0", 2))
    )
    with pytest.raises(UserError, match="copies of cash do not lie as those of acc do") as error:
        SetPartitionsCount("acc", 4).plan(facts(apart))
    assert error.value.code is Code.TABLE_UNSUITABLE


def test_replicas_make_it_claim_the_channels() -> None:
    def claimed(found: Cluster) -> set[str]:
        return {c.name for c in SetPartitionsCount("acc", 4).claims(found)}

    assert "channels" in claimed(cluster((1, 2), (2, 1)))
    assert "channels" not in claimed(cluster((1,), (2,)))
