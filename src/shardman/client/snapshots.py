"""One picture of all nodes: each transaction over several nodes that was committed by a client of ours is seen
wholly, or not at all.

Each part of such a transaction writes its name down on its node (`shardman.client_transactions`). So when each
node has a snapshot, what one sees and another lacks is found by those names, and only the snapshots that lack
something are taken again. Looked at is what was committed behind a horizon that was taken on all nodes before,
and what was prepared on any node between that and its snapshot: nothing else can have been committed on one
node before its snapshot and on another one behind.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from psycopg import errors

from shardman.client.routing.picture import HERE
from shardman.client.routing.torn import lagging
from shardman.client.sessions import Steps, own_cursor
from shardman.client.transactions import Transactions
from shardman.sql.loader import queries

#: Before a snapshot is taken again of a node that lacks what is prepared there: its client commits it just now,
#: or the shardlord does.
_PAUSE_S = 0.002
#: So often only those that lag behind are taken again.
_CHASES = 3
#: Why none begins in a transaction.
IN_SNAPSHOT = "a snapshot is one of its own: end it before"


@dataclass
class _Taking:
    """Snapshots while they are taken.

    Args:
        sessions: by the number of their nodes.
        until: by time.monotonic.
        suspects: transactions that one snapshot may see and another not.
        void: names that somebody has written down without such a transaction.
    """

    router: Transactions
    sessions: dict[int, Any]
    until: float
    horizons: dict[int, str] = field(default_factory=dict)
    suspects: set[str] = field(default_factory=set)
    void: set[str] = field(default_factory=set)
    again: int = 0

    def take(self) -> Steps:
        """Takes them, and those that lag behind again.

        Raises:
            SerializationFailure: there was no end to it.
        """
        for node in self.sessions:
            (row,) = yield from self._ask(node, "horizon")
            self.horizons[node] = row["horizon"]
        # Not before all horizons are known: what was decided before the first node's was is prepared by now.
        for node in self.sessions:
            self.suspects |= yield from self._under_way(node)
        yield from self._snapshots(list(self.sessions))
        while behind := (yield from self._lagging()):
            if time.monotonic() > self.until:
                raise errors.SerializationFailure(
                    "no instant was found at which all nodes have the same transactions of clients: one is"
                    f" not committed on node {min(behind)} yet. Repeat it; `status` says what is in doubt"
                )
            yield from self._snapshots_again(behind)

    def _lagging(self) -> Steps:
        seen = {}
        gids = sorted(self.suspects)
        for node in self.sessions if gids else ():
            rows = yield from self._ask(node, "seen", (gids,))
            seen[node] = {row["gid"]: row["nodes"] for row in rows}
        return lagging(seen, self.void)

    def _snapshots(self, nodes: list[int]) -> Steps:
        """One right behind the other: what is committed between two of them may make them differ."""
        for node in nodes:
            begin = queries("snapshots")["begin"]
            yield partial(self.sessions[node].execute, begin, prepare=False)
        for node in nodes:
            rows = yield from self._ask(node, "since", (self.horizons[node],))
            self.suspects |= {row["gid"] for row in rows}

    def _snapshots_again(self, behind: Mapping[int, set[str]]) -> Steps:
        """Of those that lag behind; of all where that has not helped: a new one sees what others lack."""
        self.again += 1
        prepared = {}
        for node, gids in behind.items():
            prepared[node] = yield from self._under_way(node)
            if prepared[node] & gids:
                yield from self._ask(node, "pause", (_PAUSE_S,))
        yield from self._snapshots(list(behind if self.again <= _CHASES else self.sessions))
        for node, gids in behind.items():
            rows = yield from self._ask(node, "seen", (sorted(gids),))
            # Another node has it committed, so it is committed here or was prepared before. A name that is
            # neither is nobody's transaction: everybody may write one down.
            self.void |= gids - {row["gid"] for row in rows} - prepared[node]

    def _under_way(self, node: int) -> Steps:
        rows = yield from self._ask(node, "under_way")
        return {row["gid"] for row in rows}

    def _ask(self, node: int, name: str, params: Any = None) -> Steps:
        cursor = own_cursor(self.sessions[node])
        yield lambda: cursor.execute(queries("snapshots")[name], params, prepare=False)
        rows = yield cursor.fetchall
        return rows


def take(router: Transactions, until: float) -> Steps:
    """Takes in all nodes that have rows of sharded tables, in a transaction that has just begun.

    Args:
        until: when it is given up, by time.monotonic.

    Returns:
        How often snapshots were taken again.

    Raises:
        FeatureNotSupported: a node can be no part of it.
        SerializationFailure: writers do not come to an end.
    """
    yield from router.refresh()
    parts = [part for table in router.picture.named.values() for part in table.parts]
    nodes = list(dict.fromkeys(part.node for part in parts)) or [HERE]
    sessions = yield from router.take_in(nodes, writes=False)
    lacking = [node for node in nodes if node not in router.numbers]
    if sessions is None or lacking:
        names = ", ".join(router.label(n) for n in lacking or nodes)
        raise errors.FeatureNotSupported(
            f"not all nodes can be read as one: {names}. Each needs max_prepared_transactions above 0, the"
            " same tables as the others, and a session without settings of its own; and atomic=True"
        )
    taking = _Taking(router, {router.numbers[n]: s for n, s in sessions.items()}, until)
    yield from taking.take()
    return taking.again


def need_whole(router: Transactions) -> Steps:
    """At its end, whether all that was read was of these snapshots: no node has forwarded anything. What moved
    before the horizons is seen with all that was committed before it moved.

    Raises:
        SerializationFailure: it was not.
    """
    for node in router.parts():
        if (yield from _forwarded(router.sessions[node])):
            router.outdated()
            raise errors.SerializationFailure(
                "a partition has moved meanwhile, so that not all that was read is of one instant: repeat it"
            )


def _forwarded(session: Any) -> Steps:
    cursor = own_cursor(session)
    yield lambda: cursor.execute(queries("snapshots")["forwarded"], prepare=False)
    row = yield cursor.fetchone
    return row["forwarded"]
