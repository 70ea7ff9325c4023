"""What steps declare, and that plans fit them; no server is needed."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from typing import get_args

import pytest

import shardman.steps  # noqa: F401  (registers every kind)
from shardman.commands.base import Command
from shardman.commands.registry import COMMANDS
from shardman.model.plan import Phase, Plan, Step
from shardman.steps.base import FinishStep, UndoableStep, bind, concurrent, kinds
from steps.plans import CLUSTER, plans

PLANS = plans()


def name(value: object) -> str | None:
    return repr(value) if not isinstance(value, Plan) else ""


@pytest.mark.parametrize(("command", "plan"), PLANS, ids=name)
def test_every_step_of_a_plan_fits_its_kind(command: Command, plan: Plan) -> None:
    for _, phase, step in plan.steps():
        written = dataclasses.replace(step, args=json.loads(json.dumps(dict(step.args))))
        bound = bind(phase, written)
        scope = bound.scope()
        assert scope.nodes <= set(CLUSTER.nodes) | {5}, (step.kind, scope)
        assert scope.parts <= CLUSTER.primaries.keys(), (step.kind, scope)
        if isinstance(bound, UndoableStep):
            assert bound.makes().what
        if isinstance(bound, FinishStep):
            assert bound.needs() <= scope.nodes


#: Of steps that share their arguments with others: the journal names the whole subject.
UNUSED = {("commit_prepared", "cmd"), ("conversion_index", "relation")}


def test_every_field_of_a_step_is_used() -> None:
    """What a plan says and its step does not heed would be promised and not done."""
    unused = set()
    for kind, cls in kinds().items():
        ours = [c for c in cls.__mro__ if c.__module__.startswith("shardman.")]
        code = "\n".join(map(inspect.getsource, ours))
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]
            if not re.search(rf"\bself\.{field.name}\b", code):
                unused.add((kind, field.name))
    assert unused == UNUSED


def test_every_verb_has_a_plan_here() -> None:
    assert {command.name for command, _ in PLANS} == COMMANDS.keys()


def test_every_kind_stands_in_a_plan() -> None:
    planned = {step.kind for _, plan in PLANS for _, _, step in plan.steps()}
    assert planned == kinds().keys()


def test_a_step_is_refused_in_another_phase() -> None:
    for kind, cls in kinds().items():
        for phase in get_args(Phase):
            if phase != cls.phase:
                with pytest.raises(TypeError, match="cannot stand in"):
                    bind(phase, Step(kind, ""))


def test_only_what_takes_something_back_has_an_undo() -> None:
    assert {k for k, cls in kinds().items() if hasattr(cls, "undo")} == {
        k for k, cls in kinds().items() if issubclass(cls, UndoableStep)
    }


def test_steps_run_at_the_same_time_only_with_kinds_of_their_phase() -> None:
    every = kinds()
    for cls in every.values():
        for other in cls.concurrent_with:
            assert every[other].phase == cls.phase


def groups(command: str) -> list[list[str]]:
    """The steps of a command's plan that run at the same time."""
    plan = next(p for c, p in PLANS if c.name == command)
    return [
        [step.kind for _, step in group]
        for phase in ("prepare", "finish")
        for group in plan.groups(phase, concurrent)  # type: ignore[arg-type]
        if len(group) > 1
    ]


def test_what_runs_at_the_same_time_in_a_move() -> None:
    assert groups("move_part") == [
        ["publication", "data_table"],
        ["verify_copy", "statistics", "fresh_route"],
        ["drop_old_copy", "converge"],
    ]


def test_other_nodes_do_not_wait_for_those_of_the_new_primaries() -> None:
    assert groups("failover") == [["end_parts", "end_parts"], ["promote", "converge"]]


def test_what_two_commands_may_make_is_named_alike_and_nothing_else() -> None:
    """Two moves of one partition to one node make the same table; what bears a command's number is its own."""
    shared = {
        made.what
        for _, plan in PLANS
        for _, phase, step in plan.steps()
        if isinstance(bound := bind(phase, step), UndoableStep)
        if (made := bound.makes()).shared
    }
    assert "the data table of acc_0 on node 4" in shared
    assert "the replica identity of acc_0 on node 1" in shared
    # Who tries again to add a node gets the number of who has failed.
    assert any(what.startswith("the schema shardman on node ") for what in shared)
    assert not {what for what in shared if "publication" in what or "prepared" in what}


def test_what_is_left_for_a_removed_node() -> None:
    lasting = {k for k, c in kinds().items() if issubclass(c, FinishStep) and c.for_removed}
    assert lasting == {"clean_node"}


def test_the_lords_slot_goes_even_if_the_node_is_away() -> None:
    """Steps behind one that failed on their node wait with it; this one must not."""
    plan = next(p for c, p in PLANS if c.name == "rm_node")
    step = next(s for s in plan.finish if s.kind == "drop_meta_slot")
    assert bind("finish", step).needs() == frozenset()


def test_the_old_copy_waits_for_the_destination() -> None:
    """Where the destination has not committed the cut-over, the source's rows are not dropped."""
    plan = next(p for c, p in PLANS if c.name == "move_part")
    step = next(s for s in plan.finish if s.kind == "drop_old_copy")
    assert bind("finish", step).needs() == {1, 4}
