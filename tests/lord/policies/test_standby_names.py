"""When standby names are looked at closely, and for whom commits on the lord wait."""

from __future__ import annotations

import pytest

from lord.policies.clusters import Clock
from shardman.lord.policies.standby_names import (
    CLOSELY_EVERY_S,
    Answer,
    LordStandbyNames,
    WorkerStandbyNames,
)

AFTER = 5.0
WANTED, TEXT = ["shardman_abcdef_1_2"], 'FIRST 1 ("shardman_abcdef_1_2")'


def test_the_first_look_of_a_leadership_is_a_close_one() -> None:
    assert WorkerStandbyNames().needs_look(1, WANTED, TEXT, Clock().now)


@pytest.mark.parametrize(
    ("wanted", "text", "seconds", "closely"),
    [
        (WANTED, TEXT, 3, False),
        (WANTED, "", 3, True),  # somebody has reset it
        ([], TEXT, 3, True),  # a command has changed what is wanted
        ([*WANTED, "shardman_abcdef_1_3"], TEXT, 3, True),
        (WANTED, TEXT, CLOSELY_EVERY_S, True),
    ],
)
def test_what_is_as_it_was_needs_a_glance(
    wanted: list[str], text: str, seconds: float, closely: bool
) -> None:
    clock, policy = Clock(), WorkerStandbyNames()
    policy.was_right(1, WANTED, TEXT, clock.now)
    assert policy.needs_look(1, wanted, text, clock.wait(seconds)) is closely
    assert policy.needs_look(2, wanted, text, clock.now)


def test_a_node_that_left_is_forgotten() -> None:
    clock, policy = Clock(), WorkerStandbyNames()
    policy.was_right(1, WANTED, TEXT, clock.now)
    policy.keep({2})
    assert policy.needs_look(1, WANTED, TEXT, clock.now)


def decide(policy: LordStandbyNames, clock: Clock, *streaming: str, sync: bool = True) -> Answer:
    return policy.decide(sync=sync, streaming=streaming, workers=3, after=AFTER, now=clock.now)


def test_commits_wait_for_those_who_stream() -> None:
    assert decide(LordStandbyNames(), Clock(), "a", "b") == Answer(("a", "b"))
    assert decide(LordStandbyNames(), Clock(), "a", sync=False) == Answer(())


def test_a_worker_has_its_time_to_come_back_and_is_not_waited_for_for_ever() -> None:
    clock, policy = Clock(), LordStandbyNames()
    decide(policy, clock, "a")
    assert decide(policy, clock) == Answer(None)
    clock.wait(AFTER - 0.1)
    assert decide(policy, clock) == Answer(None)
    clock.wait(0.1)
    assert decide(policy, clock) == Answer((), warn=True)
    assert decide(policy, clock) == Answer(())
    assert decide(policy, clock, "a") == Answer(("a",))
    assert decide(policy, clock) == Answer(None)
    clock.wait(AFTER)
    assert decide(policy, clock) == Answer((), warn=True)


def test_a_cluster_without_workers_is_nothing_to_warn_of() -> None:
    clock, policy = Clock(), LordStandbyNames()
    policy.decide(sync=True, streaming=(), workers=0, after=0, now=clock.now)
    found = policy.decide(sync=True, streaming=(), workers=0, after=AFTER, now=clock.wait(AFTER))
    assert found == Answer(())


def test_time_alone_counts_from_zero_too() -> None:
    """A monotonic clock may begin at 0."""
    policy = LordStandbyNames()
    policy.decide(sync=True, streaming=(), workers=1, after=AFTER, now=0.0)
    assert policy.decide(sync=True, streaming=(), workers=1, after=AFTER, now=AFTER).copies == ()
