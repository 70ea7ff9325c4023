"""When a channel counts as broken, and when its subscriber is only slow."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lord.policies.clusters import Clock
from shardman.lord.policies.channels import SIGNS_AFTER_S, ChannelHealth, Signs

AFTER = 5.0
PAIR = (1, 2)


IDLE = Signs(sent=200, ticks=(10, 10), waits=("WalSenderMain", "LogicalApplyMain"))


def stuck(seconds: float, end: int = 100) -> tuple[Clock, ChannelHealth]:
    """A channel over which nothing was confirmed for a time."""
    clock, health = Clock(), ChannelHealth()
    health.looked(PAIR, 90, end, clock.now)
    health.looked(PAIR, 90, end + 50, clock.wait(seconds))
    return clock, health


def watch(seconds: int, *signs: Signs, end: int = 100) -> ChannelHealth:
    """A channel over which nothing is confirmed, looked at each second, with these signs in turn."""
    clock, health = Clock(), ChannelHealth()
    for second in range(seconds + 1):
        health.looked(PAIR, 90, end + second, clock.now)
        health.signs(PAIR, signs[second % len(signs)], clock.now)
        clock.wait(1)
    return health


@pytest.mark.parametrize("lag", [0, 1])
def test_a_channel_that_confirms_is_never_late(lag: int) -> None:
    """What was there at a look is confirmed at the next; what was written since need not be."""
    clock, health = Clock(), ChannelHealth()
    for look in range(100):
        health.looked(PAIR, (look - lag) * 1000, look * 1000, clock.wait(1))
        assert lag or health.late() == []
        assert health.broken(PAIR, AFTER) is None


def test_late_is_what_was_not_confirmed_for_a_second() -> None:
    assert stuck(SIGNS_AFTER_S - 0.1)[1].late() == []
    assert stuck(SIGNS_AFTER_S)[1].late() == [PAIR]


def test_a_channel_that_shows_no_sign_of_life_is_broken() -> None:
    assert watch(4, IDLE).broken(PAIR, AFTER) is None
    said = watch(5, IDLE).broken(PAIR, AFTER)
    assert said == "nothing confirmed for 5.0 s though both nodes answer"


def test_what_is_plainly_wrong_is_said() -> None:
    stopped = replace(IDLE, said=("node 2: its worker is stopped",))
    said = watch(5, stopped).broken(PAIR, AFTER)
    assert said is not None
    assert said.endswith("both nodes answer: node 2: its worker is stopped")


def test_nothing_is_concluded_from_one_look() -> None:
    clock, health = stuck(100)
    assert health.broken(PAIR, AFTER) is None
    health.signs(PAIR, IDLE, clock.now)
    assert health.broken(PAIR, AFTER) is None


SENDING = replace(IDLE, sent=10)


@pytest.mark.parametrize(
    "other",
    [
        replace(IDLE, heard=1.0),
        replace(IDLE, ticks=(10, 20)),
        replace(IDLE, waits=("WalSenderMain", "DataFileRead")),
        replace(IDLE, sent=20),
    ],
    ids=["hears", "works", "waits for something else", "sends"],
)
def test_one_that_gets_on_is_slow(other: Signs) -> None:
    """From look to look something moves."""
    assert watch(60, SENDING, other).broken(PAIR, AFTER) is None


def test_a_publisher_at_work_with_what_it_has_not_sent_is_slow() -> None:
    works = [replace(SENDING, ticks=(n * 50, 10)) for n in range(70)]
    assert watch(60, *works).broken(PAIR, AFTER) is None


def test_a_publisher_that_goes_on_with_newer_things_is_no_sign() -> None:
    """Its subscriber is stopped: what it sends stays with the kernel."""
    works = [replace(IDLE, sent=200 + n, ticks=(n * 50, 10)) for n in range(70)]
    assert watch(6, *works).broken(PAIR, AFTER) is not None


def test_a_process_that_only_answers_does_not_work() -> None:
    assert watch(6, SENDING, replace(SENDING, ticks=(11, 11))).broken(PAIR, AFTER) is not None


def test_one_that_has_come_so_far_and_is_not_heard_is_broken() -> None:
    works = [replace(IDLE, received=100, heard=float(n), ticks=(10, n * 90)) for n in range(70)]
    assert watch(6, *works).broken(PAIR, AFTER) is not None


@pytest.mark.parametrize(
    ("errors", "pids", "times"),
    [
        ((0, 1, 2), (7, 8, 9), "2 times"),
        ((0, 0, 0), (7, 8, 8), "1 time "),
        ((0, 0, 0), (7, None, 9), "1 time "),
    ],
)
def test_one_that_fails_again_and_again_is_broken_however_busy(
    errors: tuple[int, ...], pids: tuple[int | None, ...], times: str
) -> None:
    clock, health = Clock(), ChannelHealth()
    health.applies(PAIR, errors[0], pids[0])
    for second in range(6):
        health.looked(PAIR, 90, 100, clock.now)
        health.signs(PAIR, replace(IDLE, heard=float(second)), clock.now)
        clock.wait(1)
        assert health.broken(PAIR, AFTER) is None
    for count, pid in zip(errors[1:], pids[1:], strict=True):
        health.applies(PAIR, count, pid)
    said = health.broken(PAIR, AFTER)
    assert said is not None
    assert times in said


def test_failures_before_a_confirmation_do_not_count() -> None:
    clock, health = Clock(), ChannelHealth()
    health.applies(PAIR, 0, 7)
    health.applies(PAIR, 3, 8)
    for second in range(60):
        health.looked(PAIR, 90, 100, clock.now)
        health.signs(PAIR, replace(IDLE, heard=float(second)), clock.now)
        clock.wait(1)
    assert health.broken(PAIR, AFTER) is None


def test_what_counts_is_until_when_it_was_seen_not_the_time_since() -> None:
    """A publisher that was not asked for a while says nothing about its channels."""
    clock, health = stuck(1)
    for _ in range(2):
        health.signs(PAIR, IDLE, clock.wait(1800))
    assert health.broken(PAIR, AFTER) is None


def test_a_confirmation_resets_the_clock() -> None:
    clock, health = stuck(AFTER)
    health.looked(PAIR, 100, 300, clock.wait(1))
    assert health.late() == []
    health.looked(PAIR, 299, 400, clock.wait(AFTER))
    assert health.late() == [PAIR]


def test_a_publisher_that_does_not_answer_is_watched_elsewhere() -> None:
    health = watch(60, IDLE)
    health.unknown(PAIR)
    assert health.late() == []
    assert health.broken(PAIR, AFTER) is None


def test_channels_are_judged_each_by_itself() -> None:
    clock, health = stuck(AFTER)
    health.looked((2, 1), 10, 20, clock.now)
    assert health.late() == [PAIR]
    health.keep({(2, 1)})
    assert health.late() == []


def test_without_a_slot_nothing_is_ever_confirmed() -> None:
    clock, health = Clock(), ChannelHealth()
    for _ in range(7):
        health.looked(PAIR, 0, 1, clock.wait(1))
        health.signs(PAIR, Signs(), clock.now)
    assert health.broken(PAIR, AFTER) is not None


def test_a_worker_that_reports_errors_is_told_from_one_that_was_ended() -> None:
    clock, health = Clock(), ChannelHealth()
    health.applies(PAIR, 3, 100)
    health.looked(PAIR, 90, 100, clock.now)
    health.applies(PAIR, 3, 101)
    health.looked(PAIR, 90, 110, clock.wait(SIGNS_AFTER_S))
    assert health.fails(PAIR)
    assert not health.errs(PAIR)
    health.applies(PAIR, 4, None)
    assert health.errs(PAIR)
    health.looked(PAIR, 100, 120, clock.wait(1))
    assert not health.errs(PAIR)
