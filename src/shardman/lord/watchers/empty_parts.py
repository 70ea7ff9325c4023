"""Copies of prepared transactions in which nothing was written, which their server did not send.

PostgreSQL before 15.19, 16.15, 17.11 and 18.6 decodes no PREPARE TRANSACTION of a transaction that has
only locked, tables or rows, and does send its COMMIT PREPARED. A subscriber in two phases has nothing to commit
then, and fails for ever. So it is given what it lacks: an empty transaction of that name.

No change is lost by this. What the slot does not send again the subscriber has confirmed, so a part that had
anything in it is prepared there (docs/decisions/0054).
"""

from __future__ import annotations

import structlog

from shardman.lord.ask import NO_ANSWER, Askers
from shardman.lord.journal import LordLost
from shardman.sql.loader import queries

log = structlog.get_logger()


class EmptyParts:
    """Prepares what was not sent."""

    def __init__(self, askers: Askers) -> None:
        self._askers = askers

    async def fill_in(self, src: int, dest: int, name: str) -> list[str]:
        """Lets a channel go on whose worker has failed.

        Args:
            name: the channel's, between these nodes.

        Returns:
            The transactions that were prepared on dest; none when it fails for something else, or a node does
            not answer, or the slot is in use just now.
        """
        try:
            rows = await self._askers.ask(
                src, queries("transactions")["commits_unprepared"], name, name
            )
            if not rows[0][0]:
                return []
            xids, positions = rows[0]
            lacks = queries("transactions")["copies_missing"]
            missing: list[str] = (await self._askers.ask(dest, lacks, xids, positions, name))[0][0]
            for gid in missing:
                # Of digits and underscores.
                await self._askers.ask(dest, f"begin; prepare transaction '{gid}'")
        except (*NO_ANSWER, LordLost):
            return []
        if missing:
            log.warning("empty transactions prepared", src=src, dest=dest, gids=missing)
        return missing
