"""unshard_table: what it plans and refuses."""

from __future__ import annotations

from typing import Any

import pytest

from shardman.commands.base import Facts
from shardman.commands.move_part import MovePart
from shardman.commands.rm_replica import RmReplica
from shardman.commands.switch_primary import SwitchPrimary
from shardman.commands.unshard_table import UnshardTable
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster, Copy, Node, Table
from shardman.steps.unsharding.gather import to_gather

ALONE: dict[str, Any] = {f"dependents {n}": [] for n in (0, 1, 2)} | {"key": True, "catalog": "x"}


def cluster(replevel: int = 0, group: int | None = None, inside: str | None = None) -> Cluster:
    keys: list[Any] = [{"to": inside, "to_columns": ["id"]}] if inside else []
    return Cluster(
        id="abcdef",
        nodes={0: Node(0, "", None, lord=True), **{i: Node(i, "", "active") for i in (1, 2)}},
        tables={
            "acc": Table("acc", "id", 1, 1, {"foreign_keys": keys}, replevel, True, group),
            "other": Table("other", "id", 1, 1, {}, 0, True, group),
        },
        copies=(
            Copy("acc_0", 1, None, 2 if replevel else None, "acc"),
            *((Copy("acc_0", 2, 1, None, "acc"),) if replevel else ()),
            Copy("other_0", 1, None, None, "other"),
        ),
    )


def kinds(found: Cluster, **answers: Any) -> list[str]:
    plan = UnshardTable("acc", 2).plan(Facts(found, 7, {**ALONE, **answers}))
    return [s.kind for s in plan.prepare]


def refusal(found: Cluster, aside: bool = False, **answers: Any) -> UserError:
    with pytest.raises(UserError) as refused:
        UnshardTable("acc", 2, aside).plan(Facts(found, 7, {**ALONE, **answers}))
    return refused.value


def test_replicas_go_last_and_only_where_there_are_some() -> None:
    assert kinds(cluster(1))[-2:] == ["release_replicas", "unshard_cut_over"]
    assert "release_replicas" not in kinds(cluster())


def test_without_a_key_nothing_is_logged() -> None:
    assert kinds(cluster(), key=False) == [
        "gather_partitions",
        "unshard_shadow",
        "unshard_index",
        "unshard_cut_over",
    ]


def test_partitions_come_by_the_shortest_way() -> None:
    assert list(to_gather(cluster(), "acc", 2)) == [MovePart("acc_0", 2)]
    assert list(to_gather(cluster(1), "acc", 2)) == [SwitchPrimary("acc_0", 2)]
    assert list(to_gather(cluster(), "acc", 1)) == []
    assert not isinstance(next(to_gather(cluster(1), "acc", 2)), RmReplica)


def test_what_hangs_on_it_is_named() -> None:
    refused = refusal(cluster(), **{"dependents 1": ["view v"]})
    assert "view v on node 1" in str(refused)
    assert refusal(cluster(), **{"dependents 1": None}).code == Code.NODE_UNREACHABLE
    assert "acc_0_aside_c3" in str(refusal(cluster(), **{"asides 1": ["acc_0_aside_c3"]}))
    assert "none left for s" in str(refusal(cluster(), numbers="s"))


def test_a_group_loses_nothing() -> None:
    assert "foreign keys" in str(refusal(cluster(group=1, inside="other")))
    assert "together with those of other" in str(refusal(cluster(1, group=1)))
    plan = UnshardTable("acc", 2).plan(Facts(cluster(group=1), 7, ALONE))
    assert any("other" in w for w in plan.warnings)
