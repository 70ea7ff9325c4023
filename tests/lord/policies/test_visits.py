"""When a node counts as away for the reconciler, and when it is back; what the settings mean."""

from __future__ import annotations

import pytest

from shardman.lord.policies.visits import CLOSELY_EVERY_S, PAUSE_S, AwayNodes, Change, InLine, Visit
from shardman.lord.settings import FAILOVER_AFTER_S, Settings


def test_away_and_back_are_told_once() -> None:
    nodes = AwayNodes()
    assert nodes.visited(1, Visit.IN_LINE) is None
    assert nodes.visited(1, Visit.AWAY) is Change.AWAY
    assert nodes.visited(1, Visit.AWAY) is None
    assert nodes.away == {1}
    assert nodes.visited(1, Visit.DIFFERS) is Change.BACK
    assert nodes.visited(1, Visit.IN_LINE) is None
    assert nodes.away == set()


@pytest.mark.parametrize("before", [Visit.IN_LINE, Visit.AWAY])
def test_of_a_locked_node_nothing_is_concluded(before: Visit) -> None:
    nodes = AwayNodes()
    nodes.visited(1, before)
    away = set(nodes.away)
    assert nodes.visited(1, Visit.LOCKED) is None
    assert nodes.away == away


def test_a_removed_node_that_answers_is_back() -> None:
    nodes = AwayNodes()
    assert nodes.visited(1, Visit.REMOVED_AWAY) is Change.AWAY
    assert nodes.visited(1, Visit.REMOVED_THERE) is Change.BACK


def test_a_node_that_left_is_forgotten() -> None:
    nodes = AwayNodes()
    nodes.visited(1, Visit.AWAY)
    nodes.keep({2})
    assert nodes.away == set()


def test_every_visit_has_a_pause() -> None:
    assert set(PAUSE_S) == set(Visit)
    assert all(0 < pause <= PAUSE_S[Visit.IN_LINE] for pause in PAUSE_S.values())


def test_a_node_in_line_is_left_alone_until_something_is_written() -> None:
    nodes = InLine()
    assert not nodes.is_known(1, 5, now=0.0)
    nodes.found(1, Visit.IN_LINE, 5, now=0.0)
    assert nodes.is_known(1, 5, now=10.0)
    assert not nodes.is_known(1, 6, now=10.0)
    assert not nodes.is_known(2, 5, now=10.0)
    assert not nodes.is_known(1, 5, now=CLOSELY_EVERY_S)


def test_a_node_that_differed_is_looked_at_again() -> None:
    nodes = InLine()
    nodes.found(1, Visit.IN_LINE, 5, now=0.0)
    nodes.found(1, Visit.DIFFERS, 5, now=1.0)
    assert not nodes.is_known(1, 5, now=2.0)


def test_a_server_that_counts_nothing_is_looked_at_every_time() -> None:
    nodes = InLine()
    nodes.found(1, Visit.IN_LINE, None, now=0.0)
    assert not nodes.is_known(1, None, now=1.0)


def test_what_a_server_counted_is_forgotten_with_its_session() -> None:
    nodes = InLine()
    nodes.found(1, Visit.IN_LINE, 5, now=0.0)
    nodes.forget(1)
    assert not nodes.is_known(1, 5, now=1.0)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("10", 10.0),
        ("0.5", 0.5),
        ("0", 0.0),
        ("-1", FAILOVER_AFTER_S),
        ("soon", FAILOVER_AFTER_S),
        ("nan", FAILOVER_AFTER_S),
        ("inf", FAILOVER_AFTER_S),
        ("", FAILOVER_AFTER_S),
    ],
)
def test_a_setting_that_makes_no_sense_is_the_default(written: str, seconds: float) -> None:
    assert Settings({"failover_after": written}).failover_after == seconds


def test_defaults() -> None:
    settings = Settings()
    assert (settings.failover_after, settings.rebuild_after) == (5.0, 600.0)
    assert settings.lord_sync and not settings.promoted
    assert not Settings({"lord_sync": "off"}).lord_sync
    assert Settings({"lord_term": "1"}).promoted
