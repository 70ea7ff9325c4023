"""Each thing that can be wrong with a cluster is found, and a cluster in order has no findings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shardman.model.cluster import Cluster, Copy, Node, Table
from shardman.model.finding import Finding
from shardman.model.invariants import Picture, Placed, Range, judge, partition_names
from shardman.model.shapes import Shape

DATA = Placed(partition=True, attached=("data",), server=None, leads_to=None, data=True)


def columns(*items: str) -> Shape:
    return Shape("acc", "table", "columns", items, ("acc",))


SHAPES = (columns("id integer", "v text"),)


def route(owner: int) -> Placed:
    return Placed(True, ("route",), f"shardman_node_{owner}", owner, data=False)


CLUSTER = Cluster(
    id="abc123",
    nodes={
        0: Node(0, "", None, lord=True),
        1: Node(1, "", "active"),
        2: Node(2, "", "active"),
    },
    tables={"acc": Table("acc", "id", 2, 1)},
    copies=(Copy("acc_0", 1, None, None, "acc"), Copy("acc_1", 2, None, None, "acc")),
)


def picture(node: int, **changes: object) -> Picture:
    placed = {
        "acc_0": DATA if node == 1 else route(1),
        "acc_1": DATA if node == 2 else route(2),
    }
    ranges = (Range("acc_id_seq", node * 100 + 1, (node + 1) * 100),)
    whole = Picture(node, {"nodes": "1"}, placed, ranges, shapes=SHAPES)
    return replace(whole, **changes)  # type: ignore[arg-type]


def found(cluster: Cluster = CLUSTER, *pictures: Picture, busy: str = "") -> list[Finding]:
    by_node = {p.node: p for p in (picture(0), picture(1), picture(2), *pictures)}
    return list(judge(cluster, by_node.values(), frozenset({busy})))


def placed(node: int, part: str, what: Placed) -> Picture:
    return picture(node, placed={**picture(node).placed, part: what})


def test_a_cluster_in_order_has_no_findings() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (picture(2, digests={"nodes": "2"}), "metadata differs"),
        (picture(1, ranges=(Range("acc_id_seq", 50, 150),)), "overlap"),
        (picture(1, missing_sequences=("acc_id_seq",)), "sequence is missing"),
        (picture(1, shapes=(columns("id integer"),)), "lacks v text"),
        (picture(1, shapes=(columns("id integer", "v bigint"),)), "has v bigint"),
        (picture(1, placed={}), "partition is missing"),
        (placed(1, "acc_0", replace(DATA, attached=())), "must have its data table attached"),
        (placed(1, "acc_0", replace(DATA, data=False)), "data table is missing"),
        (placed(2, "acc_0", replace(route(1), attached=())), "must have its route attached"),
        (placed(2, "acc_0", DATA), "must have its route attached"),
        (placed(0, "acc_0", route(2)), "leads to shardman_node_2"),
        (placed(2, "acc_0", replace(route(1), data=True)), "no copy belongs here"),
        (picture(1, faults=(Finding("x", "left over"),)), "left over"),
    ],
)
def test_what_is_wrong_on_a_node_is_found(wrong: Picture, words: str) -> None:
    findings = [str(f) for f in found(CLUSTER, wrong)]
    assert any(words in f for f in findings)


@pytest.mark.parametrize(
    ("copies", "words"),
    [
        ((CLUSTER.copies[0],), "0 primaries"),
        ((*CLUSTER.copies, Copy("acc_1", 1, None, None, "acc")), "2 primaries"),
        ((CLUSTER.copies[0], Copy("acc_1", 2, None, 1, "acc")), "one list"),
        ((*CLUSTER.copies, Copy("acc_1", 1, 7, None, "acc")), "one list"),
        ((CLUSTER.copies[0], Copy("acc_1", 9, None, None, "acc")), "no active worker"),
    ],
)
def test_what_is_wrong_in_the_metadata_is_found(copies: tuple[Copy, ...], words: str) -> None:
    assert any(words in str(f) for f in found(replace(CLUSTER, copies=copies)))


def test_replicas_must_form_the_order_of_succession() -> None:
    copies = (
        CLUSTER.copies[0],
        Copy("acc_1", 2, None, 1, "acc"),
        Copy("acc_1", 1, 2, None, "acc"),
    )
    with_replica = replace(CLUSTER, copies=copies)
    replica = placed(1, "acc_1", replace(route(2), data=True))
    assert found(with_replica, replica) == []
    assert any("replica's data table is missing" in str(f) for f in found(with_replica))


def test_what_a_running_command_changes_is_its_own_business() -> None:
    wrong = placed(1, "acc_0", replace(DATA, attached=()))
    assert found(CLUSTER, wrong, busy="acc_0") == []
    assert found(CLUSTER, wrong, busy="acc") == []


@pytest.mark.parametrize(
    ("relation", "name"),
    [
        ("acc", "acc_0"),
        ("app.orders", "app.orders_0"),
        ('"Weird Name"', '"Weird Name_0"'),
        ('"a.b"."c""d"', '"a.b"."c""d_0"'),
        ('"order"', "order_0"),
        ('app."order"', "app.order_0"),
        ('"user".x', '"user".x_0'),
    ],
)
def test_partitions_are_named_as_postgresql_writes_them(relation: str, name: str) -> None:
    assert list(partition_names(Table(relation, "id", 1, 1))) == [name]
