"""Which transactions wait for each other over several nodes.

A transaction is what is connected by application names: a remote session of postgres_fdw to the session that it
works for, and the sessions of one client of ours. It waits for whomever one of its sessions waits for. A circle
is a deadlock, for nobody in it goes on by himself. What was seen in two looks, of which one had ended on all
nodes before the other began, was there on all of them at one time in between.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from shardman.names import CLIENT_PART, ROUTE_OF

Place = tuple[int, int]


@dataclass(frozen=True)
class Session:
    """A session in a transaction.

    Args:
        session_id: as %c of log_line_prefix.
        began: when its transaction did.
        login: as whom it has connected.
        role: as whom it acts.
        acts_as: as whom it may reach other nodes.
        idle: it runs no statement.
    """

    node: int
    pid: int
    session_id: str
    began: datetime
    login: str
    role: str
    acts_as: frozenset[str]
    application: str
    idle: bool

    @property
    def place(self) -> Place:
        """By which it is known."""
        return self.node, self.pid


@dataclass(frozen=True)
class Wait:
    """Of a session for a lock; ``blockers``: processes on its node."""

    node: int
    pid: int
    since: datetime
    blockers: frozenset[int]

    @property
    def place(self) -> Place:
        """The session that waits."""
        return self.node, self.pid


@dataclass(frozen=True)
class Look:
    """What was seen on all nodes."""

    sessions: Mapping[Place, Session]
    waits: Sequence[Wait]


@dataclass(frozen=True)
class Edge:
    """One transaction waits for another.

    Args:
        wait: where it does.
        waiter: the session that waits there.
        blocker: for this one.
        top: the session at which the waiting transaction's client is.
        began: when the waiting transaction did.
    """

    wait: Wait
    waiter: Session
    blocker: Session
    top: Session
    began: datetime

    def text(self) -> str:
        """For people."""
        top, waiter, blocker = self.top, self.waiter, self.blocker
        through = "" if top == waiter else f", through pid {waiter.pid} on node {waiter.node},"
        return f"pid {top.pid} on node {top.node}{through} waits for pid {blocker.pid} on node {blocker.node}"


Circle = tuple[Edge, ...]


def lasting(before: Look, after: Look) -> Look:
    """What was there in both looks, in the same transactions, without an end in between."""
    same = {p: s for p, s in after.sessions.items() if _is_same(before.sessions.get(p), s)}
    known = {(w.place, w.since): w for w in before.waits}
    waits = [
        Wait(w.node, w.pid, w.since, w.blockers & known[w.place, w.since].blockers)
        for w in after.waits
        if (w.place, w.since) in known
    ]
    return Look(same, waits)


def _is_same(before: Session | None, after: Session) -> bool:
    return before is not None and (before.session_id, before.began, before.application) == (
        after.session_id,
        after.began,
        after.application,
    )


def circles(look: Look) -> list[Circle]:
    """Transactions that wait for each other, no transaction twice. Left out is what one server sees by
    itself: its own detector breaks that."""
    edges = _edges(look)
    found = []
    while (circle := _circle(edges)) is not None:
        if not _is_local([edge for _, edge in circle]):
            found.append(tuple(edge for _, edge in circle))
        for group, _ in circle:
            del edges[group]
    return found


def by_youth(circle: Circle) -> list[Edge]:
    """The youngest transaction first: least is lost with it."""
    return sorted(circle, key=lambda e: e.began, reverse=True)


def _is_local(circle: Sequence[Edge]) -> bool:
    """Whether each one who waits is by himself waited for, on one node."""
    return len({e.wait.node for e in circle}) == 1 and all(
        edge.blocker == circle[(n + 1) % len(circle)].waiter for n, edge in enumerate(circle)
    )


def _edges(look: Look) -> dict[Place, list[tuple[Place, Edge]]]:
    """By the transaction that waits, for whom it does; a transaction is known by its first session."""
    above = dict(_links(look.sessions))
    group = _groups(look.sessions, above)
    began: dict[Place, datetime] = {}
    for place, session in look.sessions.items():
        first = group[place]
        began[first] = min(began.get(first, session.began), session.began)
    busy = {w.place for w in look.waits} | set(above.values())
    edges: dict[Place, list[tuple[Place, Edge]]] = {}
    for wait in look.waits:
        waiter = look.sessions.get(wait.place)
        for pid in sorted(wait.blockers):
            blocker = look.sessions.get((wait.node, pid))
            # One that works may come to an end, and let go of what it holds for the moment.
            if waiter is None or blocker is None or not (blocker.idle or blocker.place in busy):
                continue
            mine = group[wait.place]
            top = _top(look.sessions, above, waiter)
            edge = Edge(wait, waiter, blocker, top, began[mine])
            edges.setdefault(mine, []).append((group[blocker.place], edge))
    return edges


def _links(sessions: Mapping[Place, Session]) -> Iterator[tuple[Place, Place]]:
    """Each remote session of a route, and the session that it works for. Anybody can name any session: it
    counts where that one may act as the role of the remote one."""
    by_id = {(s.node, s.session_id): s for s in sessions.values()}
    for session in sessions.values():
        if (named := re.fullmatch(ROUTE_OF, session.application)) is not None:
            origin = by_id.get((int(named[1]), named[2]))
            if origin is not None and origin != session and session.role in origin.acts_as:
                yield session.place, origin.place


def _groups(
    sessions: Mapping[Place, Session], above: Mapping[Place, Place]
) -> Mapping[Place, Place]:
    """By session its transaction's first session."""
    parts: dict[tuple[str, str], Place] = {}
    found = {}
    for place, session in sorted(sessions.items()):
        top = _top(sessions, above, session)
        named = re.search(CLIENT_PART, top.application)
        # Of the same login only: nobody joins another's by naming it.
        found[place] = parts.setdefault((top.login, named[1]), top.place) if named else top.place
    return found


def _top(
    sessions: Mapping[Place, Session], above: Mapping[Place, Place], session: Session
) -> Session:
    seen = {session.place}
    place = session.place
    while place in above and above[place] not in seen:
        place = above[place]
        seen.add(place)
    return sessions[place]


def _circle(edges: Mapping[Place, Sequence[tuple[Place, Edge]]]) -> list[tuple[Place, Edge]] | None:
    """One circle: its transactions in order, each with the edge to the next."""
    done: set[Place] = set()
    for start in sorted(edges):
        path: list[tuple[Place, Edge]] = []
        on_path = {start: 0}
        todo = [iter(edges[start])]
        at = start
        while todo:
            step = next(todo[-1], None)
            if step is None:
                todo.pop()
                done.add(at)
                on_path.pop(at, None)
                at = path.pop()[0] if path else start
                continue
            next_, edge = step
            if next_ in on_path:
                return [*path, (at, edge)][on_path[next_] :]
            if next_ in edges and next_ not in done:
                path.append((at, edge))
                on_path[next_] = len(path)
                todo.append(iter(edges[next_]))
                at = next_
    return None
