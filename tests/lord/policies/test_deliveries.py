"""When a channel confirms what it does not deliver."""

from __future__ import annotations

from shardman.lord.policies.deliveries import Deliveries

PAIR = (1, 2)


def test_a_beat_that_was_confirmed_must_be_there() -> None:
    watched = Deliveries()
    watched.looked(1, 10, 100, {2: 90}, now=0)
    watched.looked(1, 11, 200, {2: 200}, now=1)
    watched.arrived(2, {1: 10}, asked=2)
    assert not watched.lost(PAIR)
    watched.looked(1, 12, 300, {2: 300}, now=3)
    watched.arrived(2, {1: 10}, asked=4)
    assert watched.lost(PAIR)
    watched.arrived(2, {1: 12}, asked=5)
    assert not watched.lost(PAIR)


def test_what_is_not_confirmed_may_be_on_its_way() -> None:
    watched = Deliveries()
    for look in range(20):
        watched.looked(1, look, look * 100, {2: 0}, now=look)
        watched.arrived(2, {}, asked=look + 0.5)
    assert not watched.lost(PAIR)


def test_the_beat_of_a_look_is_not_in_the_wal_that_the_look_saw() -> None:
    """Its transaction ends after that, so a position in the middle of it may be confirmed without it."""
    watched = Deliveries()
    watched.looked(1, 10, 100, {2: 150}, now=0)
    watched.arrived(2, {}, asked=1)
    assert not watched.lost(PAIR)


def test_a_look_that_began_before_says_nothing() -> None:
    watched = Deliveries()
    watched.looked(1, 10, 100, {2: 100}, now=0)
    watched.looked(1, 11, 200, {2: 200}, now=5)
    watched.arrived(2, {}, asked=4)
    assert not watched.lost(PAIR)


def test_a_channel_that_is_made_anew_begins_anew() -> None:
    watched = Deliveries()
    watched.looked(1, 10, 100, {2: 100}, now=0)
    watched.looked(1, 11, 200, {2: 200}, now=1)
    watched.arrived(2, {}, asked=2)
    watched.keep([])
    assert not watched.lost(PAIR)
