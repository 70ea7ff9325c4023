"""Compares the copies of each shared table, slowly, whether or not anything seems to be wrong, and mends what
one node has otherwise than most.

Writers are not held unless copies seem to differ, which they do while somebody writes; then for a moment
(`lord.shared_copies`). A difference that is there at that instant is one. What is mended is one
transaction on one node, so a shardlord that dies here leaves nothing but the time of the last comparison.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AsyncExitStack

import psycopg
import structlog

from shardman.lord.metadata import Known
from shardman.lord.policies.scrub import Copy
from shardman.lord.policies.shared_scrub import MOST_ROWS, agreed, why_not
from shardman.lord.shared_copies import SharedCopies
from shardman.lord.watchers.comparing import Comparing
from shardman.model.cluster import Shared
from shardman.pg.comparison import Changed, Content, Unsettled
from shardman.pg.connection import Connection
from shardman.pg.wording import plain
from shardman.sql.loader import queries
from shardman.steps.catalog import value

log = structlog.get_logger()


class SharedScrub(Comparing):
    """Compares copies of shared tables for one leadership: all of a table at once."""

    compared = "shared_compared"

    def _copies(self, known: Known, silent: set[int]) -> tuple[list[Copy], list[Copy]]:
        nodes = {t.relation: {*t.nodes} for t in known.cluster.shared_in_order if len(t.nodes) > 1}
        there = [(r, 0) for r, on in nodes.items() if not silent & on]
        return there, [(r, 0) for r, on in nodes.items() if silent & on]

    async def _look(self, known: Known, copy: Copy) -> tuple[int, float]:
        begun = time.monotonic()
        [table] = [t for t in known.cluster.shared_in_order if t.relation == copy[0]]
        return await self._compare(known, table), time.monotonic() - begun

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
