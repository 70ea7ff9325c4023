"""A planned absence: when it is over, and what is done about a silent node until then."""

from __future__ import annotations

from lord.policies.clusters import Clock, ring
from shardman.lord.policies.maintenance import AGAIN_S, BACK_S, Endings, Returns
from shardman.lord.policies.nodes import NodeHealth
from shardman.model.succession import succeed

AFTER = 5.0


def health_of(workers: int) -> NodeHealth:
    health = NodeHealth()
    health.keep(range(1, workers + 1))
    return health


def test_nobody_takes_over_from_a_node_in_maintenance() -> None:
    clock, health = Clock(), health_of(3)
    health.unanswered(2, clock.now)
    verdict = health.judge(ring(3, maintained=[2]), AFTER, clock.wait(AFTER + 60))
    # Whoever waits for an answer of it has waited long enough nevertheless.
    assert (verdict.dead, verdict.candidates, verdict.suspicion) == ((2,), (), None)


def test_once_its_time_is_over_it_is_dead_like_any_other() -> None:
    clock, health = Clock(), health_of(3)
    health.unanswered(2, clock.now)
    health.overdue([2])
    assert health.judge(ring(3, maintained=[2]), AFTER, clock.wait(AFTER)).candidates == (2,)


def test_it_says_nothing_about_the_network() -> None:
    clock = Clock()
    health = health_of(3)
    health.unanswered(1, clock.now)
    health.unanswered(3, clock.now)
    verdict = health.judge(ring(3, maintained=[3]), AFTER, clock.wait(AFTER))
    assert (verdict.candidates, verdict.suspicion) == ((1,), None)


def test_its_replicas_are_promoted_only_when_losses_are_accepted() -> None:
    cluster = ring(3, maintained=[2])
    assert succeed(cluster, 1, [2, 3]).stuck == ("acc_0",)
    after = succeed(cluster, 1, [2, 3], accept_data_loss=True)
    assert (after.promoted, after.lossy) == ({"acc_0": (2,)}, ("acc_0",))


def test_it_is_ended_when_the_node_answers_and_again_later_where_that_fails() -> None:
    clock, endings = Clock(), Endings()
    assert endings.due({2, 3}, {3}, clock.now) == [2]
    assert endings.due({2, 3}, {3}, clock.wait(AGAIN_S - 0.1)) == []
    assert endings.due({2, 3}, (), clock.wait(0.2)) == [2, 3]
    # Twice the pause.
    assert endings.due({2, 3}, (), clock.wait(AGAIN_S + 0.1)) == [3]
    assert endings.due((), (), clock.now) == []
    assert endings.due({2}, (), clock.now) == [2]


def test_a_node_that_was_away_is_back_when_it_has_answered_for_a_while() -> None:
    clock, returns = Clock(), Returns()
    until = {2: "noon", 3: "noon"}
    assert returns.back(until, (), clock.now) == set()
    assert returns.back(until, [2], clock.wait(60)) == set()
    assert returns.back(until, (), clock.wait(1)) == set()
    assert returns.back(until, [2], clock.wait(BACK_S - 1)) == set()
    assert returns.back(until, (), clock.wait(1)) == set()
    # The other one has not been away yet.
    assert returns.back(until, (), clock.wait(BACK_S)) == {2}
    # Called again, it may be away once more.
    assert returns.back({2: "evening"}, (), clock.wait(60)) == set()
    assert returns.back({}, (), clock.now) == set()


def test_a_short_absence_is_told_once() -> None:
    health = NodeHealth()
    health.keep({1, 2})
    health.unanswered(2, 0.0)
    assert health.returned() == set()
    health.answered(2)
    health.answered(1)
    assert (health.returned(), health.returned()) == ({2}, set())
