"""A plan as data."""

from __future__ import annotations

from shardman.model.plan import Plan, Step

#: Kinds that may run at the same time.
PAIRS = {("a", "b"), ("c", "d"), ("c", "e"), ("x", "y")}


def step(kind: str) -> Step:
    return Step(kind, kind)


def concurrent(earlier: Step, later: Step) -> bool:
    return (earlier.kind, later.kind) in PAIRS


def test_steps_that_may_run_at_the_same_time_are_one_group() -> None:
    plan = Plan(
        prepare=(step("a"), step("b"), step("c"), step("d")),
        switch=(step("s"),),
        finish=(step("x"), step("y"), step("z")),
    )
    groups = {
        p: [[n for n, _ in g] for g in plan.groups(p, concurrent)] for p in ("prepare", "finish")
    }
    assert groups == {"prepare": [[1, 2], [3, 4]], "finish": [[6, 7], [8]]}


def test_a_step_joins_a_group_when_it_may_run_with_all_of_it() -> None:
    plan = Plan(prepare=(step("c"), step("d"), step("e")))
    assert [[n for n, _ in g] for g in plan.groups("prepare", concurrent)] == [[1, 2], [3]]


def test_a_phase_begins_a_group_of_its_own() -> None:
    plan = Plan(prepare=(step("x"),), finish=(step("y"),))
    assert plan.groups("prepare", concurrent) == [[(1, step("x"))]]
    assert plan.groups("finish", concurrent) == [[(2, step("y"))]]
    assert plan.groups("switch", concurrent) == []
