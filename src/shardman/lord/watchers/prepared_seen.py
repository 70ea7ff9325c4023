"""The names of what applications have prepared on each node, for when others take over from it.

Replicas hold such transactions by their numbers only.
"""

from __future__ import annotations

import psycopg

from shardman.lord.sessions import Sessions
from shardman.sql.loader import queries


class PreparedSeen:
    """What the lord's database has been told of it; of each node anew where that is not known."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._told: dict[int, set[tuple[str, str, str]]] = {}

    async def saw(self, node: int, found: list[tuple[str, str, str]]) -> None:
        """Writes down what is prepared on a node, where that has changed.

        Args:
            found: each one's name, role and number there.
        """
        if self._told.get(node) == set(found):
            return
        gids, roles, xids = ([each[i] for each in found] for i in range(3))
        try:
            lord = await self._sessions.lord()
            try:
                await lord.execute(
                    queries("transactions")["note_prepared"], (node, gids, roles, xids)
                )
            finally:
                await self._sessions.give_back(lord)
        except psycopg.Error:
            return  # It is written at the next look.
        self._told[node] = set(found)
