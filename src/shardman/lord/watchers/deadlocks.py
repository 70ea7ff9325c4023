"""Breaks deadlocks over several nodes, which no server sees by itself.

Each node is asked once a second whether anybody waits, which is all as long as nobody does.
"""

from __future__ import annotations

import secrets
from typing import Any

import psycopg
import structlog

from shardman.lord.ask import NO_ANSWER, Askers
from shardman.lord.journal import LordLost
from shardman.lord.metadata import Metadata
from shardman.lord.policies.deadlocks import (
    Circle,
    Edge,
    Look,
    Session,
    Wait,
    by_youth,
    circles,
    lasting,
)
from shardman.lord.policies.nodes import NodeHealth
from shardman.sql.loader import queries
from shardman.tasks import all_of, pause

log = structlog.get_logger()

LOOK_EVERY_S = 0.9
#: Who waits for less is not looked at.
PATIENCE_S = 0.2
#: Between the two looks that must agree. With the patience more than DDL and cut-overs of ours wait for
#: one lock before they give way (shardman.pass_gate): what ends by itself is no deadlock.
CONFIRM_S = 0.5


class Deadlocks:
    """The look at waiting transactions of one leadership."""

    def __init__(self, askers: Askers, metadata: Metadata, health: NodeHealth) -> None:
        self._askers = askers
        self._metadata = metadata
        self._health = health

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            await self._look()
            await pause(LOOK_EVERY_S)

    async def _look(self) -> None:
        nodes = sorted({*self._metadata.known.cluster.members} - self._health.silent())
        waits = await self._waits(nodes)
        if not waits:
            return
        before = Look(await self._sessions(nodes), waits)
        if not circles(before):
            return
        await pause(CONFIRM_S)
        after = Look(await self._sessions(nodes), await self._waits(nodes))
        for circle in circles(lasting(before, after)):
            await self._break(circle)

    async def _waits(self, nodes: list[int]) -> list[Wait]:
        answers = await all_of(*(self._ask(n, "waits", PATIENCE_S) for n in nodes))
        return [
            Wait(node, pid, since, frozenset(blockers))
            for node, rows in zip(nodes, answers, strict=True)
            for pid, since, blockers in rows
        ]

    async def _sessions(self, nodes: list[int]) -> dict[tuple[int, int], Session]:
        answers = await all_of(*(self._ask(n, "sessions") for n in nodes))
        return {
            (node, pid): Session(
                node, pid, id_, began, login, role, frozenset(acts_as), application, idle
            )
            for node, rows in zip(nodes, answers, strict=True)
            for pid, id_, began, login, role, acts_as, application, idle in rows
        }

    async def _ask(self, node: int, name: str, *params: Any) -> list[tuple[Any, ...]]:
        """What a node says; nothing where it does not answer: what is not known makes no circle."""
        try:
            return await self._askers.ask(node, queries("deadlocks")[name], *params)
        except (*NO_ANSWER, LordLost):
            return []

    async def _break(self, circle: Circle) -> None:
        """Cancels the youngest that may be cancelled; a superuser's may not by everybody."""
        for edge in by_youth(circle):
            if await self._cancel(edge, "; ".join(e.text() for e in circle)):
                return

    async def _cancel(self, edge: Edge, text: str) -> bool:
        """Whether the circle is no more."""
        top, wait = edge.top, edge.wait
        id_ = secrets.token_hex(8)
        note = (id_, top.node, top.pid, top.login, top.application, text)
        places = {top.node, self._metadata.known.cluster.lord.id}
        # Before, so that a client that asks at once is told.
        await all_of(*(self._ask(n, "note", *note) for n in places))
        try:
            ((done,),) = await self._askers.ask(
                wait.node, queries("deadlocks")["end"], wait.pid, edge.waiter.began, wait.since
            )
        except psycopg.errors.InsufficientPrivilege:
            done = None
        except (*NO_ANSWER, LordLost):
            done = False
        if done:
            log.warning("deadlock over nodes broken", node=top.node, pid=top.pid, circle=text)
        else:
            await all_of(*(self._ask(n, "forget", id_) for n in places))
        return done is not None
