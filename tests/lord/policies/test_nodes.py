"""Who is silent, who is dead, when the shardlord suspects itself: without servers, with a clock of our own."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lord.policies.clusters import Clock, cluster, ring
from shardman.lord.policies.nodes import AGAIN_S, NodeHealth

AFTER = 5.0


def health_of(workers: int) -> NodeHealth:
    health = NodeHealth()
    health.keep(range(1, workers + 1))
    return health


def test_a_node_that_answers_is_not_silent() -> None:
    health = health_of(3)
    assert health.calm
    health.unanswered(2, asked=1.0)
    assert health.silent() == {2} and not health.calm
    health.answered(2)
    assert health.silent() == set() and health.calm


@pytest.mark.parametrize(
    ("silent_for", "dead"), [(0.0, ()), (AFTER - 0.01, ()), (AFTER, (2,)), (AFTER + 60, (2,))]
)
def test_dead_is_who_was_silent_for_long(silent_for: float, dead: tuple[int, ...]) -> None:
    clock, health = Clock(), health_of(3)
    health.unanswered(2, clock.now)
    verdict = health.judge(ring(3), AFTER, clock.wait(silent_for))
    assert (verdict.dead, verdict.candidates, verdict.suspicion) == (dead, dead, None)
    assert verdict.alive == {1, 3}


def test_silence_counts_from_the_first_question_that_was_not_answered() -> None:
    clock, health = Clock(), health_of(3)
    health.unanswered(2, clock.now)
    health.unanswered(2, clock.wait(AFTER))
    assert health.judge(ring(3), AFTER, clock.now).candidates == (2,)


def test_one_answer_resets_the_clock() -> None:
    clock, health = Clock(), health_of(3)
    health.unanswered(2, clock.now)
    clock.wait(AFTER - 0.1)
    health.answered(2)
    health.unanswered(2, clock.now)
    assert not health.judge(ring(3), AFTER, clock.wait(0.2)).dead
    assert health.judge(ring(3), AFTER, clock.wait(AFTER)).dead == (2,)


@pytest.mark.parametrize(
    ("workers", "silent", "suspicious"),
    [
        (1, 1, False),  # the only one: there is nobody else to compare it with
        (2, 1, False),
        (2, 2, True),
        (3, 1, False),
        (3, 2, True),
        (4, 2, False),
        (4, 3, True),
        (6, 3, False),
        (6, 4, True),
        (9, 5, False),
        (9, 6, True),
    ],
)
def test_most_workers_silent_at_once(workers: int, silent: int, suspicious: bool) -> None:
    clock, health = Clock(), health_of(workers)
    for node in range(1, silent + 1):
        health.unanswered(node, clock.now)
    # Neighbours have each other's replicas; here everybody has one of everybody.
    everybody = {
        f"acc_{n}": [n, *(m for m in range(1, workers + 1) if m != n)]
        for n in range(1, workers + 1)
    }
    verdict = health.judge(cluster(range(1, workers + 1), everybody), AFTER, clock.wait(AFTER * 10))
    assert (verdict.suspicion is not None) is suspicious
    if suspicious:
        assert not verdict.dead and not verdict.candidates


def test_after_a_suspicion_each_gets_its_time_anew() -> None:
    clock, health = Clock(), health_of(3)
    for node in (1, 2):
        health.unanswered(node, clock.now)
    suspicion = health.judge(ring(3), AFTER, clock.wait(60)).suspicion
    assert suspicion == "most workers are silent at once: 1, 2"
    health.answered(1)
    # Nothing is done in the instant in which it is over,
    assert health.judge(ring(3), AFTER, clock.wait(1)) == health.judge(ring(3), AFTER, clock.now)
    assert not health.judge(ring(3), AFTER, clock.wait(AFTER - 0.1)).dead
    # and node 2 is dead when it stays silent from then on.
    assert health.judge(ring(3), AFTER, clock.wait(0.1)).candidates == (2,)


def test_who_has_nothing_to_take_over_says_nothing_about_the_network() -> None:
    clock, health = Clock(), health_of(3)
    bare = cluster([1, 2, 3], {"acc_0": [1, 2], "acc_1": [2, 1]})
    health.unanswered(3, clock.now)
    verdict = health.judge(bare, AFTER, clock.wait(AFTER))
    assert (verdict.dead, verdict.candidates) == ((3,), ())
    # Of the two that are left one is dead: no suspicion.
    health.unanswered(1, clock.now)
    verdict = health.judge(bare, AFTER, clock.wait(AFTER))
    assert (verdict.suspicion, verdict.candidates) == (None, (1,))


def test_what_nobody_can_take_over_is_no_candidate() -> None:
    clock, health = Clock(), health_of(3)
    health.unanswered(1, clock.now)
    verdict = health.judge(cluster([1, 2, 3], {"acc_0": [1]}), AFTER, clock.wait(AFTER))
    assert (verdict.dead, verdict.candidates) == ((1,), ())


def test_while_one_is_replaced_nobody_else_is_a_candidate() -> None:
    clock, health = Clock(), health_of(6)
    health.unanswered(1, clock.now)
    health.unanswered(4, clock.now)
    assert health.judge(ring(6), AFTER, clock.wait(AFTER)).candidates == (1, 4)
    reason = health.begin(1, {2, 3, 5, 6}, clock.now)
    assert reason == "silent for 5.0 s; nodes asked, which do not hear it either: 2, 3, 5, 6"
    verdict = health.judge(ring(6), AFTER, clock.now)
    assert (verdict.dead, verdict.candidates) == ((1, 4), ())
    with pytest.raises(RuntimeError):
        health.begin(4, (), clock.now)
    health.ended(1, clock.now)
    assert health.judge(ring(6), AFTER, clock.now).candidates == (4,)


def test_a_failover_that_failed_is_tried_again_a_while_later() -> None:
    clock, health = Clock(), health_of(3)
    health.unanswered(2, clock.now)
    health.judge(ring(3), AFTER, clock.wait(AFTER))
    health.begin(2, {1, 3}, clock.now)
    health.ended(2, clock.wait(1))
    assert not health.judge(ring(3), AFTER, clock.wait(AGAIN_S - 0.01)).candidates
    assert health.judge(ring(3), AFTER, clock.wait(0.01)).candidates == (2,)


def test_a_node_that_answered_while_it_was_replaced_gets_its_whole_time() -> None:
    clock, health = Clock(), health_of(3)
    health.unanswered(2, clock.now)
    health.judge(ring(3), AFTER, clock.wait(AFTER))
    health.begin(2, {1, 3}, clock.now)
    health.answered(2)
    health.unanswered(2, clock.wait(1))
    health.ended(2, clock.now)
    assert not health.judge(ring(3), AFTER, clock.wait(AFTER - 0.01)).dead
    assert health.judge(ring(3), AFTER, clock.wait(0.01)).candidates == (2,)


def test_nobody_to_ask() -> None:
    clock, health = Clock(), health_of(1)
    health.unanswered(1, clock.now)
    assert health.begin(1, (), clock.wait(7)) == "silent for 7.0 s; nobody to ask"


def test_a_node_that_left_is_forgotten() -> None:
    clock, health = Clock(), health_of(3)
    health.unanswered(3, clock.now)
    health.keep({1, 2})
    health.unanswered(3, clock.now)  # the answer to a question that was on its way
    assert health.calm
    health.keep({1, 2, 3})
    assert not health.judge(ring(3), AFTER, clock.wait(60)).dead


class AnyHistory(RuleBasedStateMachine):
    """Nodes answer or not, come and go, time goes on, failovers end somehow: whatever happens, one is begun
    only of a node that was not heard for `failover_after`, and only one at a time."""

    @initialize(workers=st.integers(1, 7), after=st.sampled_from([0.5, 5.0, 20.0]))
    def begin(self, workers: int, after: float) -> None:
        self.clock, self.health, self.after = Clock(), health_of(workers), after
        self.cluster = ring(workers)
        self.members = set(range(1, workers + 1))
        #: When each was heard last or began to be watched, and when the shardlord suspected itself last.
        self.heard = dict.fromkeys(self.members, self.clock.now)
        self.suspected = float("-inf")
        self.under_way: int | None = None
        self.cut: set[int] = set()

    @rule(data=st.data())
    def cut_off_or_mend(self, data: st.DataObject) -> None:
        self.cut ^= {data.draw(st.sampled_from(sorted(self.members)))}

    @rule(seconds=st.sampled_from([0.25, 1.0, 3.0, 5.0, 20.0]))
    def go_on(self, seconds: float) -> None:
        self.clock.wait(seconds)
        for node in self.members:
            if node in self.cut:
                self.health.unanswered(node, self.clock.now)
            else:
                self.health.answered(node)
                self.heard[node] = self.clock.now
        self.judge()

    @precondition(lambda self: self.under_way in self.cut & self.members)
    @rule()
    def the_replaced_one_answers_once(self) -> None:
        assert self.under_way is not None
        self.health.answered(self.under_way)
        self.heard[self.under_way] = self.clock.now
        self.health.unanswered(self.under_way, self.clock.now)

    @rule(data=st.data())
    def join_or_leave(self, data: st.DataObject) -> None:
        node = data.draw(st.sampled_from(sorted(self.cluster.nodes.keys() - {0})))
        if self.members != {node}:
            self.members ^= {node}
            self.heard[node] = self.clock.now
            self.health.keep(self.members)

    def judge(self) -> None:
        now, silent = self.clock.now, self.health.silent()
        verdict = self.health.judge(self.cluster, self.after, now)
        if verdict.suspicion is not None:
            assert len(silent) >= 2
            assert not verdict.dead and not verdict.candidates
            self.suspected = now
        assert set(verdict.candidates) <= set(verdict.dead) <= silent
        assert verdict.alive == self.members - silent
        for node in verdict.dead:
            assert now - self.heard[node] >= self.after - 1e-6
            assert now - self.suspected >= self.after - 1e-6
        if verdict.candidates:
            assert self.under_way is None
            self.under_way = verdict.candidates[0]
            self.health.begin(self.under_way, verdict.alive, now)
            assert not self.health.judge(self.cluster, self.after, now).candidates

    @precondition(lambda self: self.under_way is not None)
    @rule()
    def failover_ends(self) -> None:
        assert self.under_way is not None
        self.health.ended(self.under_way, self.clock.now)
        self.under_way = None

    @invariant()
    def silent_are_members(self) -> None:
        if hasattr(self, "members"):
            assert self.health.silent() <= self.members


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)


def test_a_node_that_cannot_write_is_replaced_although_it_answers() -> None:
    clock, health = Clock(), health_of(3)
    health.cannot_write(2, clock.now, "no space left on device")
    assert health.is_sick(2) and health.silent() == {2}
    assert health.judge(ring(3), AFTER, clock.wait(AFTER)).candidates == (2,)
    assert health.begin(2, {1, 3}, clock.now) == "cannot write for 5.0 s: no space left on device"
    health.answered(2)
    assert not health.is_sick(2) and health.silent() == set()
