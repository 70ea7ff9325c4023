"""Who waits for whom over nodes, from what was seen there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shardman.lord.policies.deadlocks import (
    Look,
    Session,
    Wait,
    by_youth,
    circles,
    lasting,
)
from shardman.names import client_part

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
TOKEN = "0123456789abcdef"


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def session(node: int, pid: int, began: float = 0, **more: Any) -> Session:
    role = more.pop("role", "bob")
    values = {
        "session_id": f"a.{pid:x}",
        "login": role,
        "role": role,
        "acts_as": frozenset([role]),
        "application": "app",
        "idle": True,
        **more,
    }
    return Session(node, pid, began=at(began), **values)


def route(node: int, pid: int, origin: Session, **more: Any) -> Session:
    name = f"postgres_fdw from {origin.node} {origin.session_id}"
    return session(node, pid, 9, **{"application": name, "login": "shardman_bob", **more})


def look(sessions: list[Session], waits: list[tuple[Session, Session]], since: float = 5) -> Look:
    found = [Wait(w.node, w.pid, at(since), frozenset([b.pid])) for w, b in waits]
    return Look({s.place: s for s in sessions}, found)


def crossed(**more: Any) -> tuple[list[Session], list[tuple[Session, Session]]]:
    """Two transactions, each with its session on one node and a route to the other."""
    a, b = session(1, 10, 1, acts_as=frozenset(["bob", "carol"])), session(2, 20, 2)
    a2, b1 = route(2, 21, a, **more), route(1, 11, b)
    return [a, b, a2, b1], [(a2, b), (b1, a)]


def test_the_youngest_is_named_by_the_session_at_which_its_client_is() -> None:
    (circle,) = circles(look(*crossed()))
    assert [e.top.pid for e in by_youth(circle)] == [20, 10]
    assert by_youth(circle)[0].text() == (
        "pid 20 on node 2, through pid 11 on node 1, waits for pid 10 on node 1"
    )


def test_a_stranger_is_no_part() -> None:
    assert circles(look(*crossed(role="mallory"))) == []
    # What the session may set as its role, it may also be on another node.
    assert len(circles(look(*crossed(role="carol")))) == 1


def test_one_server_sees_for_itself() -> None:
    a, b = session(1, 10), session(1, 11)
    assert circles(look([a, b], [(a, b), (b, a)])) == []


def test_a_transaction_may_wait_for_itself() -> None:
    a = session(1, 10)
    b, c = route(2, 20, a), route(2, 21, a)
    (circle,) = circles(look([a, b, c], [(b, c)]))
    assert [e.top.pid for e in circle] == [10]


def test_clients() -> None:
    other = TOKEN[::-1]
    a1, a2 = (session(n, 10 + n, application=client_part("x", TOKEN)) for n in (1, 2))
    b1, b2 = (session(n, 20 + n, application=client_part("", other)) for n in (1, 2))
    waits = [(a2, b2), (b1, a1)]
    assert len(circles(look([a1, a2, b1, b2], waits))) == 1
    stranger = session(2, 12, role="mallory", application=a2.application)
    assert circles(look([a1, stranger, b1, b2], [(stranger, b2), (b1, a1)])) == []


def test_who_works_may_come_to_an_end() -> None:
    sessions, waits = crossed()
    working = session(1, 10, 1, idle=False)
    assert len(circles(look([working, *sessions[1:]], waits))) == 1  # It waits for its own route.
    one = session(1, 12, idle=False, application=client_part("x", TOKEN))
    part = session(2, 22, application=client_part("x", TOKEN))
    other = session(2, 20)
    there = route(1, 11, other)
    assert circles(look([one, part, other, there], [(part, other), (there, one)])) == []


def test_both_looks_must_agree() -> None:
    sessions, waits = crossed()
    before = look(sessions, waits)
    assert len(circles(lasting(before, before))) == 1
    assert circles(lasting(before, look(sessions, waits, since=6))) == []
    assert circles(lasting(before, look(sessions, waits[:1]))) == []
    another = [session(1, 10, 3, acts_as=sessions[0].acts_as), *sessions[1:]]
    assert circles(lasting(before, look(another, waits))) == []


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=16))
def test_circles_are_circles(pairs: list[tuple[int, int]]) -> None:
    """Eight clients with a session on each of two nodes; each wait is on a node by its number."""
    parts = {
        (n, i): session(n, 100 * n + i, i, application=client_part("", f"{i:016x}"))
        for n in (1, 2)
        for i in range(8)
    }
    wants = {w: (1 + (w + b) % 2, b) for w, b in pairs if w != b}
    waits = [(parts[node, w], parts[node, b]) for w, (node, b) in wants.items()]
    found = circles(look([*parts.values()], waits))
    for circle in found:
        for n, edge in enumerate(circle):
            assert edge.blocker.pid % 100 == circle[(n + 1) % len(circle)].waiter.pid % 100
            assert wants[edge.waiter.pid % 100][1] == edge.blocker.pid % 100
    looping = [w for w in wants if _loops(wants, w)]
    assert bool(found) == any(not _on_one_node(wants, w) for w in looping)


def _loops(wants: dict[int, tuple[int, int]], start: int) -> bool:
    at_, seen = wants.get(start, (0, -1))[1], set()
    while at_ in wants and at_ not in seen and at_ != start:
        seen.add(at_)
        at_ = wants[at_][1]
    return at_ == start


def _on_one_node(wants: dict[int, tuple[int, int]], start: int) -> bool:
    nodes, at_ = {wants[start][0]}, wants[start][1]
    while at_ != start:
        nodes.add(wants[at_][0])
        at_ = wants[at_][1]
    return len(nodes) == 1


def test_names_keep_their_end() -> None:
    for name in ("", "app", "x" * 100, "ä" * 30, " tail "):
        made = client_part(name, TOKEN)
        assert made.endswith(f"+{TOKEN}") and not made.startswith(" ")
        assert sum(1 if c.isascii() else 4 * len(c.encode()) for c in made) <= 63
