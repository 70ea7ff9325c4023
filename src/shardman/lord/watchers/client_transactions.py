"""Ends what clients have left of transactions over several nodes.

The first node of such a transaction knows what has become of it, and is asked. Where others have taken over
from it, what it has decided counts only where its channels have brought it. Otherwise nothing is guessed, and
status tells. A part that stays prepared keeps its locks for ever.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import psycopg
import structlog

from shardman.lord.ask import NO_ANSWER
from shardman.lord.journal import LordLost
from shardman.lord.watchers.prepared_seen import PreparedSeen
from shardman.lord.watchers.reach import Reach
from shardman.sql.loader import queries
from shardman.steps.catalog import value
from shardman.steps.client_parts import end_as
from shardman.tasks import all_of

log = structlog.get_logger()

LOOK_EVERY_S = 2.0
#: Its client is most likely still there, and ends a younger one sooner.
YOUNG_S = 1.0
FORGET_EVERY_S = 60.0
#: How long it is remembered how a transaction has ended, for those who read on all nodes.
REMEMBER_S = 600.0

_VERBS = {"committed": "commit", "aborted": "rollback"}


@dataclass(frozen=True)
class Part:
    """Of a transaction, prepared on a node.

    Args:
        node: where it is.
        gid: under which name.
        role: whose it is.
        first: the node that knows the outcome.
        xid: the number of the transaction there.
    """

    node: int
    gid: str
    role: str
    first: int
    xid: str

    @property
    def arrives(self) -> bool:
        """Whether all channels of its first node carry what that has decided."""
        return self.gid.split("_")[2].startswith("y")


class ClientTransactions:
    """The look at prepared parts of one leadership."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._forgot_at = time.monotonic()
        self._prepared = PreparedSeen(reach.sessions)

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            await self._look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look(self) -> None:
        members = set(self._reach.metadata.known.cluster.members)
        reached = set(self._reach.nodes())
        decided: dict[int, str] = {}
        if time.monotonic() - self._forgot_at >= FORGET_EVERY_S and reached == members:
            self._forgot_at = time.monotonic()
            decided = await self._decided(members)
        answers = await all_of(*(self._parts(n) for n in reached))
        parts = [each for answer in answers for each in answer or ()]
        for part, age in parts:
            if age >= YOUNG_S:
                await self._end(part, members, reached)
        if None not in answers:
            left = {part.gid for part, _ in parts}
            await all_of(*(self._forget(n, left, seen) for n, seen in decided.items()))

    async def _decided(self, members: set[int]) -> dict[int, str]:
        """What each node has committed by now, as a snapshot; empty unless all nodes answer. Looked for
        before the parts: those of what was decided on by then are prepared, or have ended."""
        try:
            answers = await all_of(
                *(self._reach.askers.ask(n, queries("transactions")["snapshot"]) for n in members)
            )
        except (*NO_ANSWER, LordLost):
            return {}
        if any(rows[0][1] for rows in answers):
            return {}
        return {n: rows[0][0] for n, rows in zip(members, answers, strict=True)}

    async def _parts(self, node: int) -> list[tuple[Part, float]] | None:
        """Those on a node with their age in seconds; None when it does not answer."""
        try:
            rows = await self._reach.askers.ask(node, queries("transactions")["parts"])
        except (*NO_ANSWER, LordLost):
            return None
        await self._prepared.saw(
            node, [(g, role, x) for g, role, first, x, _ in rows if first is None]
        )
        return [
            (Part(node, gid, role, first, xid), age)
            for gid, role, first, xid, age in rows
            if first is not None
        ]

    async def _forget(self, node: int, left: set[str], seen: str) -> None:
        try:
            await self._reach.askers.ask(
                node, queries("transactions")["forget"], [*left], seen, REMEMBER_S
            )
        except (*NO_ANSWER, LordLost):
            return

    async def _outcome(self, part: Part, members: set[int], reached: set[int]) -> str:
        """What has become of a transaction, or another word than those of `_VERBS` when nobody can tell.

        Raises:
            psycopg.Error, UserError, TimeoutError, LordLost: the same.
        """
        if part.first in reached and await self._place(part.first) != "elsewhere":
            outcome = await self._ask(part.first, "outcome", part.gid, part.role, part.xid)
            # It has not been taken over from before it answered.
            if outcome != "elsewhere" and await self._place(part.first) != "elsewhere":
                return outcome
        others = sorted((members & reached) - {part.first})
        said = await all_of(
            *(self._ask(n, "arrived", part.gid, part.role, part.first) for n in others)
        )
        if "committed" in said:
            return "committed"
        none = all(each == "aborted" for each in said) and members - {part.first} <= reached
        return "aborted" if none and await self._counts_elsewhere(part) else "in doubt"

    async def _counts_elsewhere(self, part: Part) -> bool:
        """Whether what its first node has decided counts only where it has arrived."""
        if not part.arrives:
            return False
        if await self._place(part.first) == "elsewhere":
            return True
        # It has come back, and was told that others had taken over from it.
        outcome = await self._ask(part.first, "outcome", part.gid, part.role, part.xid)
        return outcome == "elsewhere"

    async def _ask(self, node: int, query: str, *params: str | int) -> str:
        ((answer,),) = await self._reach.askers.ask(node, queries("transactions")[query], *params)
        return str(answer)

    async def _place(self, node: int) -> str | None:
        """Where what a node decides counts; None when it is no member."""
        lord = await self._reach.sessions.lord()
        try:
            found = await value(lord, queries("transactions")["place"], node)
            return None if found is None else str(found)
        finally:
            await self._reach.sessions.give_back(lord)

    async def _end(self, part: Part, members: set[int], reached: set[int]) -> None:
        try:
            outcome = await self._outcome(part, members, reached)
        except (*NO_ANSWER, LordLost):
            return
        if (verb := _VERBS.get(outcome)) is None:
            return
        try:
            async with self._reach.sessions.on_known(part.node) as conn:
                await end_as(conn, verb, part.gid, part.role)
        except psycopg.errors.UndefinedObject:
            return  # Its client was there first.
        except psycopg.Error as error:
            log.warning(
                "part of a transaction not ended", node=part.node, gid=part.gid, reason=str(error)
            )
        else:
            log.info("part of a transaction ended", node=part.node, gid=part.gid, outcome=outcome)
