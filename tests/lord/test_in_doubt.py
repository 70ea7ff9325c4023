"""What a process remembers of what it has prepared."""

from __future__ import annotations

from shardman.lord.in_doubt import Decision, Doubts


def test_it_stands_until_the_last_node_is_done() -> None:
    doubts = Doubts()
    doubts.prepare(7, 1, "acc_0", {2: 100, 1: 200})
    assert doubts.stands(7) and not doubts.stands(8)
    assert [*doubts.all()[0].nodes] == [2, 1]
    doubts.ended(7, 2)
    doubts.ended(8, 1)
    assert doubts.stands(7)
    doubts.ended(7, 1)
    assert not doubts.stands(7)
    assert doubts.all() == [] and doubts.longest() == 0


def test_a_new_attempt_begins_with_no_decision() -> None:
    doubts = Doubts()
    doubts.prepare(7, 1, "acc_0", {1: 100})
    doubts.decide(7, Decision.ASKED)
    doubts.prepare(7, 2, "acc_0", {1: 101})
    assert [(d.attempt, d.decision) for d in doubts.all()] == [(2, Decision.NEVER)]


def test_what_has_prepared_nothing_is_not_in_doubt() -> None:
    doubts = Doubts()
    doubts.decide(7, Decision.ASKED)
    doubts.ended(7, 1)
    assert doubts.all() == []


def test_each_thing_is_said_once() -> None:
    doubts = Doubts()
    doubts.prepare(7, 1, "acc_0", {1: 100, 2: 200})
    (doubt,) = doubts.all()
    assert [doubt.first(node) for node in (0, 1, 0, 1, 2)] == [True, True, False, False, True]
