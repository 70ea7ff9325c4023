"""A plan as data."""

from __future__ import annotations

from shardman.model.plan import Plan, Step


def step(kind: str, beside: bool = False) -> Step:
    return Step(kind, kind, beside=beside)


def test_steps_that_may_run_side_by_side_are_one_group() -> None:
    plan = Plan(
        prepare=(step("a"), step("b", beside=True), step("c"), step("d", beside=True)),
        switch=(step("s"),),
        finish=(step("x"), step("y", beside=True), step("z")),
    )
    groups = {p: [[n for n, _ in g] for g in plan.groups(p)] for p in ("prepare", "finish")}
    assert groups == {"prepare": [[1, 2], [3, 4]], "finish": [[6, 7], [8]]}


def test_a_phase_begins_a_group_of_its_own() -> None:
    plan = Plan(prepare=(step("a"),), finish=(step("x", beside=True),))
    assert plan.groups("prepare") == [[(1, step("a"))]]
    assert plan.groups("finish") == [[(2, step("x", beside=True))]]
    assert plan.groups("switch") == []
