"""Compares the copies of each shared table, slowly, whether or not anything seems to be wrong, and mends what
one node has otherwise than most.

Writers are not held unless copies seem to differ, which they do while somebody writes; then for a moment
(`lord.shared_copies`). A difference that is there at that instant is one. What is mended is one
transaction on one node, so a shardlord that dies here leaves nothing but the time of the last comparison.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack

import psycopg
import structlog

from shardman.lord.ask import NO_ANSWER, Askers
from shardman.lord.journal import LordLost
from shardman.lord.metadata import Known, Metadata
from shardman.lord.policies.nodes import NodeHealth
from shardman.lord.policies.scrub import Turns, pause
from shardman.lord.policies.shared_scrub import MOST_ROWS, agreed, why_not
from shardman.lord.sessions import Sessions
from shardman.lord.shared_copies import SharedCopies
from shardman.lord.watchers.readers import Readers
from shardman.model.cluster import Shared
from shardman.pg.comparison import Changed, Content, Unsettled
from shardman.pg.connection import Connection
from shardman.pg.wording import plain
from shardman.sql.loader import queries
from shardman.steps.catalog import value

log = structlog.get_logger()

#: How long nothing is looked for when nothing is due, or the scrub is off, in seconds.
IDLE_S = 1.0


class SharedScrub:
    """Compares copies of shared tables for one leadership.

    Args:
        nodes: what is known of the workers: tables of those that are silent are left alone.
    """

    def __init__(
        self, sessions: Sessions, askers: Askers, metadata: Metadata, nodes: NodeHealth
    ) -> None:
        self._sessions = sessions
        self._readers = Readers(sessions, askers)
        self._metadata = metadata
        self._nodes = nodes
        self._turns = Turns()

    async def run(self) -> None:
        """Compares until cancelled."""
        await self._remember()
        while True:
            pause_s = await self._step()
            await asyncio.sleep(pause_s)

    async def _remember(self) -> None:
        """When a former shardlord has compared each."""
        lord = await self._sessions.lord()
        try:
            now = time.monotonic()
            cur = await lord.execute(queries("watch")["shared_compared"])
            for relation, age in await cur.fetchall():
                self._turns.tried((relation, 0), now - age)
        finally:
            await self._sessions.give_back(lord)

    async def _step(self) -> float:
        """Compares the table that is due; how long to pause, in seconds."""
        known, silent, now = self._metadata.known, self._nodes.silent(), time.monotonic()
        tables = {t.relation: t for t in known.cluster.shared_in_order if len(t.nodes) > 1}
        away = {r for r, t in tables.items() if silent & {*t.nodes}}
        self._turns.keep([(r, 0) for r in tables if r not in away], [(r, 0) for r in away], now)
        due = self._turns.next(known.settings.scrub_every, now)
        if due is None or not (rate := await self._readers.rate(known)):
            return IDLE_S
        self._turns.tried(due, now)
        try:
            size = await self._compare(known, tables[due[0]])
        except Unsettled as held:
            log.debug("not compared", relation=due[0], waits_for=str(held))
            return IDLE_S
        except (Changed, LordLost, *NO_ANSWER):
            return IDLE_S
        return pause(size, rate, time.monotonic() - now)

    async def _compare(self, known: Known, table: Shared) -> int:
        """The bytes of one copy.

        Raises:
            Unsettled, Changed, or what a node that does not answer does.
        """
        async with AsyncExitStack() as stack:
            readers = {n: await self._readers.session(stack, n) for n in table.nodes}
            holders = {n: await self._readers.session(stack, n) for n in table.nodes}
            copies = SharedCopies(table.relation, holders, readers)
            size = await _size(readers, table.relation)
            await copies.begin()
            if len(set((await copies.shapes()).values())) > 1:
                # DDL may be on its way, and says itself where it is not (`watchers.schema_changes`).
                raise Changed(table.relation)
            contents = await self._readers.giving_way(readers, copies.contents())
            if len({*map(_frozen, contents.values())}) > 1:
                await copies.end()
                await copies.begin_at_one_instant()
                contents = await self._readers.giving_way(readers, copies.contents())
            await self._settle(known, copies, contents)
        return size

    async def _settle(
        self, known: Known, copies: SharedCopies, contents: Mapping[int, Content]
    ) -> None:
        """Mends what differs, where that can be, and writes down what was found."""
        right = agreed(contents)
        like = min(contents) if right is None else right
        wrong: dict[int, list[str]] = {}
        for node, content in contents.items():
            if content != contents[like]:
                buckets = content.differing_buckets(contents[like])
                wrong[node] = await copies.keys(like, node, buckets, MOST_ROWS)
        await copies.end()
        for node, content in contents.items():
            keys = wrong.get(node)
            why = keys and why_not(right, len(keys), known.settings.scrub_repair)
            if keys and not why:
                why = await self._mend(copies, like, node, keys)
            rows = min(len(keys or ()), MOST_ROWS)
            mended = bool(keys) and not why
            if keys:
                log.warning(
                    "copy of a shared table differs",
                    relation=copies.relation,
                    node=node,
                    like=like,
                    rows=rows,
                    mended=mended,
                )
            await self._readers.note(
                "note_shared_comparison",
                *(copies.relation, node, like, content.rows, rows, why or None, mended),
            )

    async def _mend(
        self, copies: SharedCopies, right: int, wrong: int, keys: list[str]
    ) -> str | None:
        """What was in the way; None: nothing was."""
        try:
            await copies.mend(right, wrong, keys)
        except Unsettled as held:
            return f"it is tried again: {held}"
        except psycopg.Error as error:
            return plain(error)
        return None


def _frozen(content: Content) -> frozenset[tuple[int, tuple[int, str]]]:
    return frozenset(content.buckets.items())


async def _size(readers: Mapping[int, Connection], relation: str) -> int:
    size = await value(next(iter(readers.values())), queries("watch")["shared_bytes"], relation)
    if size is None:
        raise Changed(relation)
    return int(size)
