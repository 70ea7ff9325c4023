"""What commands plan where partitions go together with those of other tables."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from shardman.commands.base import Facts
from shardman.commands.colocate import Colocate
from shardman.commands.create_hash_partitions import CreateHashPartitions
from shardman.commands.create_replica import CreateReplica
from shardman.commands.drop_table import DropTable
from shardman.commands.failover import Failover
from shardman.commands.move_part import MovePart
from shardman.commands.rebalance import Rebalance
from shardman.commands.rm_replica import RmReplica
from shardman.commands.suspend_replicas import SuspendReplicas
from shardman.commands.switch_primary import SwitchPrimary
from shardman.commands.uncolocate import Uncolocate
from shardman.errors import UserError
from shardman.lord.policies.rebuild import behind
from shardman.model.cluster import Cluster, Copy, Node, Table
from shardman.model.colocation import gathering, why_not
from shardman.model.draining import drain
from shardman.model.invariants import apart
from shardman.model.plan import Json, Plan
from shardman.model.replicas import Change
from shardman.model.succession import succeed
from steps.plans import LONG_AGO

KEY: list[Json] = [{"sql": "id", "column": "id", "type": "integer"}]
NODES = (1, 2, 3, 4)


def table(relation: str, colocation: int | None = 7, **more: Any) -> Table:
    return Table(relation, "id", 2, 1, {"key": KEY, **more}, replevel=1, colocation=colocation)


def copies(relation: str, places: dict[int, list[int]]) -> list[Copy]:
    found = []
    for k, nodes in places.items():
        for n, node in enumerate(nodes):
            prv = nodes[n - 1] if n else None
            nxt = nodes[n + 1] if n + 1 < len(nodes) else None
            found.append(Copy(f"{relation}_{k}", node, prv, nxt, relation))
    return found


PLACES = {0: [1, 2], 1: [2, 1]}
REFERS: list[Json] = [{"name": "k", "to": "orders", "to_columns": ["id"]}]
CLUSTER = Cluster(
    "abcdef",
    {0: Node(0, "lord", None, lord=True), **{n: Node(n, f"w{n}", "active") for n in NODES}},
    {
        "lines": table("lines", foreign_keys=REFERS),
        "orders": table("orders"),
        "alone": table("alone", None),
    },
    tuple(c for r in ("lines", "orders", "alone") for c in copies(r, PLACES)),
)
ANSWERS: dict[str, Any] = {
    **{f"identity {p}": "key" for p in CLUSTER.primaries},
    **{f"answers {n}": True for n in NODES},
    "primary": True,
}


def plan(command: Any, cluster: Cluster = CLUSTER, **answers: Any) -> Plan:
    made: Plan = command.plan(Facts(cluster, 9, {**ANSWERS, **answers}))
    return made


def parts(made: Plan, kind: str) -> list[list[Json]]:
    """The partitions of each step of a kind."""
    steps = [step for _, _, step in made.steps() if step.kind == kind]
    found: list[list[Json]] = []
    for step in steps:
        beside = step.args.get("beside", [])
        assert isinstance(beside, list)
        found.append([step.args["part"], *beside])
    return found


def test_partitions_of_one_number_go_together() -> None:
    assert CLUSTER.rank("orders_1") == CLUSTER.rank("lines_1") == ("lines_1", "orders_1")
    assert CLUSTER.rank("alone_1") == ("alone_1",)
    assert CLUSTER.group("orders") == ("lines", "orders")
    assert [p for p in CLUSTER.primaries if CLUSTER.leads(p)] == [
        "lines_0",
        "lines_1",
        "alone_0",
        "alone_1",
    ]


@pytest.mark.parametrize("part", ["lines_0", "orders_0"])
def test_a_move_has_one_channel_and_one_cut_over(part: str) -> None:
    made = plan(MovePart(part, 3))
    both = [["lines_0", "orders_0"]]
    for kind in ("publication", "copy_rows", "subscription", "cut_over", "drop_old_copy"):
        assert parts(made, kind) == both, kind
    for kind in ("check_move", "data_table", "verify_copy", "fresh_route", "register", "set_owner"):
        assert parts(made, kind) == [["lines_0"], ["orders_0"]], kind
    assert [s.args["node"] for _, _, s in made.steps() if s.kind == "commit_prepared"] == [1, 3]
    claims = {c.name for c in MovePart(part, 3).claims(CLUSTER)}
    assert {"part lines_0", "part orders_0", "table lines", "table orders"} <= claims


def test_so_do_replicas_and_switches() -> None:
    assert parts(plan(MovePart("lines_0", 3, 2)), "set_owner") == [["lines_0"], ["orders_0"]]
    assert parts(plan(SwitchPrimary("lines_0", 2)), "cut_over") == [["lines_0", "orders_0"]]
    assert parts(plan(SwitchPrimary("lines_0", 2)), "set_order") == [["lines_0"], ["orders_0"]]
    assert parts(plan(CreateReplica("orders_0", 3)), "add_copy") == [["lines_0"], ["orders_0"]]
    assert parts(plan(RmReplica("orders_0", 2)), "remove_copy") == [["lines_0"], ["orders_0"]]
    assert SuspendReplicas(1, 2, "orders").parts(CLUSTER) == ["lines_0", "orders_0"]


def test_they_count_as_one() -> None:
    sizes = {"lines_0": 1, "orders_0": 5, "lines_1": 2, "orders_1": 2, "alone_0": 9}
    answers = {"sizes 1": sizes, "sizes 2": {}, "sizes 3": {}, "sizes 4": {}}
    placed = Rebalance("lines", "bytes").placement(Facts(CLUSTER, 9, answers))
    assert placed.before.nodes[1].bytes == 6
    moved = [(m.part_name, m.src) for m in drain(CLUSTER, 1, NODES)]
    assert moved == [("alone_0", 1), ("alone_1", 1), ("lines_0", 1), ("lines_1", 1)]


def test_one_takes_over_all() -> None:
    after = succeed(CLUSTER, 1, (2, 3, 4))
    assert after.promoted == dict.fromkeys(("lines_0", "orders_0", "alone_0"), (2,))
    # What is not believed for one is not for the other.
    after = succeed(CLUSTER, 1, (2, 3, 4), unproven={("orders_0", 2)})
    assert after.promoted == {"alone_0": (2,)}
    assert after.stuck == ("lines_0", "orders_0")
    after = succeed(CLUSTER, 1, (2, 3, 4), accept_data_loss=True, unproven={("orders_0", 2)})
    assert after.lossy == ("lines_0", "orders_0")
    assert {("lines_1", 1), ("orders_1", 1)} <= set(after.stale)


def test_what_goes_together_with_lost_rows_is_taken_along() -> None:
    found = {"there lines_0": False, "there orders_0": True}
    made = plan(Failover(1, part_name="lines_0"), **found)
    (switch,) = made.switch
    assert switch.args["promoted"] == {"lines_0": [2], "orders_0": [2]}
    assert parts(made, "cut_over") == parts(made, "drop_old_copy") == [["orders_0"]]
    assert [s.args["parts"] for s in made.finish if s.kind == "promote"] == [["lines_0"]]
    claims = {c.name for c in Failover(1, part_name="lines_0").claims(CLUSTER)}
    assert {"part lines_0", "part orders_0"} <= claims
    # Where all are lost none is in use.
    made = plan(Failover(1, part_name="lines_0"), **{**found, "there orders_0": False})
    assert made.prepare == ()
    with pytest.raises(UserError, match="node 1 has the rows of orders_0"):
        plan(Failover(1, part_name="orders_0"), **found)
    alone = plan(Failover(1, part_name="alone_0"), **{"there alone_0": False})
    assert alone.switch and alone.prepare == ()


def test_an_old_copy_is_renewed_once() -> None:
    stale = tuple(
        dataclasses.replace(c, stale_since=LONG_AGO) if c.owner == 2 and c.prv else c
        for c in CLUSTER.copies
    )
    cluster = dataclasses.replace(CLUSTER, copies=stale)
    assert [c.part for c in behind(cluster, NODES)] == ["alone_0", "lines_0"]
    made = plan(CreateReplica("lines_0", 2), cluster, **{"old copy": True})
    assert parts(made, "sync_rows") == [["lines_0", "orders_0"]]
    assert parts(made, "set_fresh") == [["lines_0"], ["orders_0"]]


def test_a_new_table_is_laid_beside_another() -> None:
    found = gathering(CLUSTER, "alone", "orders")
    assert found.done
    there = {"alone": {0: [2, 1], 1: [3]}, "orders": {0: [1, 2], 1: [2, 4]}}
    cluster = dataclasses.replace(
        CLUSTER, copies=tuple(c for r, places in there.items() for c in copies(r, places))
    )
    found = gathering(cluster, "alone", "orders")
    assert [(m.part_name, m.src, m.dest, m.kind) for m in found.moves] == [
        ("alone_0", 2, 1, "switch"),
        ("alone_1", 3, 2, "move"),
    ]
    assert found.changes == (Change("alone_1", 4, add=True),)


def test_who_is_refused() -> None:
    described = {"definition": {"relation": "t", "key": KEY}, "obstacles": [], "warnings": []}
    more = {"create_sql": "", "has_key": True, "rows": 0}
    answers = {"described": {**described, **more}, **{f"taken {n}": [] for n in (0, *NODES)}}
    assert plan(CreateHashPartitions(1, "t", "id", colocate_with="orders"), **answers).finish
    with pytest.raises(UserError, match="has 2 partitions, not 3"):
        plan(CreateHashPartitions(1, "t", "id", 3, colocate_with="orders"), **answers)
    with pytest.raises(UserError, match="needs partitions_count"):
        plan(CreateHashPartitions(1, "t", "id"), **answers)
    text: list[Json] = [{"sql": "name", "column": "name", "type": "text"}]
    assert why_not(CLUSTER.tables["orders"], {"key": text}) is not None
    assert why_not(CLUSTER.tables["orders"], {"key": [*KEY, *text]}) is not None
    collated: list[Json] = [{"name": "name", "collation": 'pg_catalog."C"'}]
    named = dataclasses.replace(CLUSTER.tables["orders"], definition={"key": text})
    assert why_not(named, {"key": text}) is None
    assert why_not(named, {"key": text, "columns": collated}) is not None
    with pytest.raises(UserError, match="a foreign key of lines"):
        plan(DropTable("orders"))


def test_what_is_sharded_joins_by_another_command() -> None:
    with pytest.raises(UserError, match=r"sharded already.*colocate\('alone', 'orders'\)"):
        plan(CreateHashPartitions(1, "alone", "id", colocate_with="orders"))
    with pytest.raises(UserError, match="Spread it with rebalance"):
        plan(CreateHashPartitions(1, "lines", "id", colocate_with="orders"))


def apart_from(places: dict[int, list[int]], **changed: Any) -> Cluster:
    """The cluster with the copies of `alone` elsewhere, and tables changed."""
    kept = [c for c in CLUSTER.copies if c.relation != "alone"]
    return dataclasses.replace(
        CLUSTER,
        copies=(*kept, *copies("alone", places)),
        tables={**CLUSTER.tables, **changed},
    )


def test_a_sharded_table_joins() -> None:
    cluster = apart_from({0: [3, 4], 1: [2, 1]})
    made = plan(Colocate("alone", "orders"), cluster)
    assert [s.kind for s in (*made.prepare, *made.switch)] == ["gather_copies", "record_colocation"]
    found = Colocate("alone", "orders").gathering(cluster)
    assert [(m.part_name, m.dest) for m in found.moves] == [("alone_0", 1)]
    # A replica goes when the one in its place is there.
    assert found.changes == (Change("alone_0", 2, add=True), Change("alone_0", 4, add=False))
    assert plan(Colocate("alone", "orders")).prepare == ()
    claims = {c.name for c in Colocate("alone", "orders").claims(cluster)}
    assert {"table alone", "table orders", "table lines", "channels"} <= claims


def test_what_does_not_fit_is_refused_before_anything_is_moved() -> None:
    elsewhere = {0: [3, 4], 1: [2, 1]}
    more = dataclasses.replace(table("alone", None), partitions_count=4)
    with pytest.raises(UserError, match=r"set_partitions_count\('alone', 2\)"):
        plan(Colocate("alone", "orders"), apart_from(elsewhere, alone=more))
    text: list[Json] = [{"sql": "id", "column": "id", "type": "text"}]
    other = dataclasses.replace(table("alone", None), definition={"key": text})
    with pytest.raises(UserError, match="has not the type"):
        plan(Colocate("alone", "orders"), apart_from(elsewhere, alone=other))
    with pytest.raises(UserError, match=r"with lines.*uncolocate\('orders'\) first"):
        plan(Colocate("orders", "alone"))
    with pytest.raises(UserError, match="with orders already"):
        plan(Colocate("lines", "orders"))
    with pytest.raises(UserError, match="is one table"):
        plan(Colocate("alone", "alone"))
    found = apart_from(elsewhere)
    drained = {**found.nodes, 1: Node(1, "w1", "active", draining=True)}
    with pytest.raises(UserError, match="being drained"):
        plan(Colocate("alone", "orders"), dataclasses.replace(found, nodes=drained))
    stale = tuple(
        dataclasses.replace(c, stale_since=LONG_AGO) if c.prv and c.relation == "orders" else c
        for c in found.copies
    )
    with pytest.raises(UserError, match="does not follow"):
        plan(Colocate("alone", "orders"), dataclasses.replace(found, copies=stale))


def test_a_table_leaves_unless_foreign_keys_hold_it() -> None:
    for relation in ("lines", "orders"):
        with pytest.raises(UserError, match=r"key k of lines\. Drop it with drop_foreign_key"):
            plan(Uncolocate(relation))
    with pytest.raises(UserError, match="colocated with no table"):
        plan(Uncolocate("alone"))
    free = dataclasses.replace(CLUSTER, tables={**CLUSTER.tables, "lines": table("lines")})
    assert [s.kind for s in plan(Uncolocate("lines"), free).switch] == ["record_alone"]


def test_the_check_finds_what_is_apart() -> None:
    assert list(apart(CLUSTER)) == []
    moved = tuple(
        dataclasses.replace(c, owner=3) if (c.part_name, c.owner) == ("orders_1", 2) else c
        for c in CLUSTER.copies
    )
    found = list(apart(dataclasses.replace(CLUSTER, copies=moved)))
    assert [f.subject for f in found] == ["orders_1"]
    alone = {**CLUSTER.tables, "lines": table("lines", 8, foreign_keys=REFERS)}
    found = list(apart(dataclasses.replace(CLUSTER, tables=alone)))
    assert [f.subject for f in found] == ["lines"]
