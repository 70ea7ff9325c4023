"""Which nodes get a role as it was changed on the lord's server."""

from __future__ import annotations

from shardman.lord.policies.roles import Follow, Roles


def test_what_was_the_same_follows_the_lord() -> None:
    roles = Roles()
    assert roles.due({"bob": "a"}, {1: {"bob": "a"}, 2: {"bob": "a"}}) == []
    assert roles.due({"bob": "b"}, {1: {"bob": "a"}, 2: {"bob": "b"}}) == [
        Follow(1, "bob", "a", "b")
    ]


def test_a_node_that_was_away_follows_when_it_is_back() -> None:
    roles = Roles()
    roles.due({"bob": "a"}, {1: {"bob": "a"}, 2: {"bob": "a"}})
    assert roles.due({"bob": "b"}, {1: {"bob": "a"}}) == [Follow(1, "bob", "a", "b")]
    assert roles.due({"bob": "b"}, {1: {"bob": "b"}, 2: {"bob": "a"}}) == [
        Follow(2, "bob", "a", "b")
    ]


def test_what_was_never_the_same_is_left_alone() -> None:
    roles = Roles()
    assert roles.due({"bob": "a"}, {1: {"bob": "x"}, 2: {}}) == []
    assert roles.due({"bob": "b"}, {1: {"bob": "x"}, 2: {}}) == []


def test_a_change_on_a_worker_goes_nowhere() -> None:
    roles = Roles()
    roles.due({"bob": "a"}, {1: {"bob": "a"}, 2: {"bob": "a"}})
    assert roles.due({"bob": "a"}, {1: {"bob": "x"}, 2: {"bob": "a"}}) == []
    assert roles.due({}, {1: {"bob": "a"}, 2: {"bob": "a"}}) == []


def test_two_changes_are_not_judged() -> None:
    roles = Roles()
    roles.due({"bob": "a"}, {1: {"bob": "a"}, 2: {"bob": "a"}})
    assert roles.due({"bob": "b"}, {1: {"bob": "x"}, 2: {"bob": "a"}}) == []
    assert roles.due({"bob": "b"}, {1: {}, 2: {"bob": "a"}}) == []
