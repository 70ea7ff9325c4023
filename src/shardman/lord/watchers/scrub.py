"""Compares replicas with their primaries all the time, slowly, whether or not anything seems to be wrong.

What a channel delivers is watched elsewhere (`watchers.channels`); this finds what went past it: a row that
somebody changed in a replica, a page that a disk has lost. Both copies are seen at one instant
(`pg.comparison`), so a difference is one. The table's replicas on that channel are then no copies any more and
are brought up to date, as after any other fault of it (`scrub_repair`); without that it is only told.

The readers give way to whoever waits for a lock of theirs. A shardlord that dies here leaves nothing but the
time of the last comparison.
"""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from dataclasses import dataclass

import structlog

from shardman import names
from shardman.lord.ask import Askers
from shardman.lord.metadata import Known, Metadata
from shardman.lord.policies.nodes import NodeHealth
from shardman.lord.policies.scrub import Copy
from shardman.lord.sessions import Sessions
from shardman.lord.watchers.channels import Suspend
from shardman.lord.watchers.comparing import Comparing
from shardman.pg.comparison import Changed, Copies
from shardman.sql.loader import queries
from shardman.steps.catalog import value

log = structlog.get_logger()


@dataclass(frozen=True)
class Found:
    """What a comparison has found."""

    rows: int
    size: int
    differing: int
    took: float


class Scrub(Comparing):
    """Compares replicas for one leadership.

    Args:
        nodes: what is known of the workers: those that are silent are left alone.
        suspend: see `Suspend`.
    """

    compared = "compared"

    def __init__(
        self,
        sessions: Sessions,
        askers: Askers,
        metadata: Metadata,
        nodes: NodeHealth,
        suspend: Suspend,
    ) -> None:
        super().__init__(sessions, askers, metadata, nodes)
        self._suspend = suspend

    def _copies(self, known: Known, silent: set[int]) -> tuple[list[Copy], list[Copy]]:
        nodes = {
            (c.part_name, c.owner): {c.owner, _owner(known, c.part_name)}
            for c in known.cluster.copies
            if c.prv is not None and c.stale_since is None
        }
        there = [c for c, on in nodes.items() if not on & {None, *silent}]
        return there, [c for c, on in nodes.items() if on & silent]

    async def _look(self, known: Known, copy: Copy) -> tuple[int, float]:
        found = await self._compare(known, copy)
        await self._tell(known, copy, found)
        return found.size, found.took

    async def _compare(self, known: Known, copy: Copy) -> Found:
        """Raises Unsettled, Changed, or what a node that does not answer does."""
        part, dest = copy
        src = _owner(known, part)
        assert src is not None
        begun = time.monotonic()
        async with AsyncExitStack() as stack:
            holder, primary, replica = [
                await self._readers.session(stack, node) for node in (src, src, dest)
            ]
            size = await value(primary, queries("watch")["copy_bytes"], part)
            if size is None:
                raise Changed(part)
            channel = names.channel(known.cluster.id, src, dest)
            copies = Copies(part, holder, primary, {channel: replica})
            await copies.at_one_instant()
            readers = {src: primary, dest: replica}
            here, there = await self._readers.giving_way(readers, copies.contents())
            await copies.rollback()
        return Found(here.rows, int(size), there.differing(here), time.monotonic() - begun)

    async def _tell(self, known: Known, copy: Copy, found: Found) -> None:
        """Writes down what was found; what differs is looked at twice, then brought up to date."""
        if found.differing:
            found = await self._compare(known, copy)
        part, dest = copy
        src = _owner(known, part)
        assert src is not None
        await self._readers.note(
            "note_comparison", part, dest, found.rows, found.size, found.took, found.differing
        )
        if not found.differing:
            return
        log.warning("replica differs", part=part, node=dest, primary=src, rows=found.differing)
        now = await self._metadata.read()
        relation = known.cluster.primaries[part].relation
        if now.settings.scrub_repair and now.follows((src, dest), relation):
            reason = f"the replica of {part} differed from its primary in at least {found.differing} rows"
            await self._suspend(src, dest, reason, relation)
            if not (await self._metadata.read()).follows((src, dest), relation):
                await self._readers.note("note_given_up", src, dest, relation)


def _owner(known: Known, part: str) -> int | None:
    """The node of a partition's primary."""
    primary = known.cluster.primaries.get(part)
    return None if primary is None else primary.owner
