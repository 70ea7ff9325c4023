"""Makes a worker's copy of the metadata the lord's.

Nothing is decided before one transaction on that worker (`shardman.become_lord`). What comes before it
can be repeated; what comes after it, the shardlord of the new lord's database does
(`lord/watchers/followers.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import psycopg
from psycopg.conninfo import make_conninfo

from shardman import names
from shardman.errors import Code, Temporary, UserError
from shardman.nodes.reach import Reach
from shardman.pg import slots, strangers, subscriptions
from shardman.pg.connection import Connection
from shardman.pg.initialize import publish_metadata
from shardman.pg.retirement import retire

#: For clients that have submitted a command in a transaction that they keep open.
ACCEPT_S = 30
#: For the worker's copy to have all that the lord has.
CATCH_UP_S = 60
_OURS = (
    "select set_config('synchronous_commit', 'local', false),"
    " set_config('lock_timeout', %s, false), set_config('statement_timeout', '0', false)"
)


@dataclass(frozen=True)
class Promoted:
    """What a promotion has done.

    Args:
        node: whose database is the lord's now.
        dsn: how it is reached, without its password.
        former: the id that the former lord's database had.
        away: members that could not be reached and learn of it later.
    """

    node: int
    dsn: str
    former: int
    away: list[int]


async def promote(dsn: str, node: int, *, force: bool, say: Callable[[str], None]) -> Promoted:
    """Makes the copy of the metadata on a worker the lord's; safe to repeat.

    Args:
        dsn: of any node that can be reached.
        node: the worker.
        force: also without the lord's database, when that cannot be reached.
        say: hears what goes on.

    Raises:
        UserError: the worker is none, another one has newer metadata, the lord cannot be reached.
    """
    with Reach(dsn) as reach:
        async with reach.sessions() as session:
            return await _Promotion(reach, node, say, force).run(session)


class _Promotion:
    """One attempt.

    Args:
        reach: the cluster, as the node that was named knows it.
        node: the worker that is to be the lord's.
        say: hears what goes on.
        force: see `promote`.
    """

    def __init__(self, reach: Reach, node: int, say: Callable[[str], None], force: bool) -> None:
        self._reach, self._node, self._say, self._force = reach, node, say, force
        self._slot = names.meta_slot(reach.cluster, node)
        self._open: dict[int, Connection] = {}

    async def run(self, session: Callable[[int], Awaitable[Connection]]) -> Promoted:
        """Does it, on sessions by node."""
        await self._connect(session)
        self._require_worker()
        former = await self._former()
        if former == self._node and await self._acts():
            return self._done(former)
        if former != self._node and former not in self._open and not self._force:
            raise UserError(
                f"the lord's database (node {former}) cannot be reached",
                "Start it, or give --force if it is lost: a lord that is alive is shut out then",
                code=Code.NODE_UNREACHABLE,
            )
        await self._require_newest()
        await self._refuse_strangers()
        epoch = await self._cut_over(former)
        try:
            await self._make_way(former, epoch)
            await self._decide(epoch)
        except BaseException:  # Ctrl-C as well: without a lord nobody could submit anything
            await self._take_back(former, epoch)
            raise
        if former in self._open and former != self._node:
            await retire(self._open[former], self._reach.cluster)
        return self._done(former)

    async def _connect(self, session: Callable[[int], Awaitable[Connection]]) -> None:
        for member in sorted({n.id for n in self._reach.members} | {self._node}):
            try:
                conn = await session(member)
            except UserError as error:
                if member == self._node:
                    raise
                self._say(f"Node {member} cannot be reached: {error.what}.")
                continue
            await conn.execute(_OURS, (f"{ACCEPT_S}s",))
            self._open[member] = conn

    async def _refuse_strangers(self) -> None:
        """Before anything stops: what a lord needs has names that others may have taken on this server."""
        conn, cluster = self._open[self._node], self._reach.cluster
        await strangers.refuse_publication(conn, names.meta_publication(cluster))
        for member in self._reach.members:
            await strangers.refuse_slot(conn, names.meta_slot(cluster, member.id))

    async def _make_way(self, former: int, epoch: int) -> None:
        """The former lord decides nothing more, and the worker's copy has all that it decided."""
        if former in self._open and former != self._node:
            self._say(f"The lord's database (node {former}) steps down.")
            await self._catch_up(former, epoch)
        else:
            await self._cut_off()
        await self._require_newest()

    async def _take_back(self, former: int, epoch: int) -> None:
        """Nothing was decided: the lord goes on, in the new term, for its old one is refused everywhere."""
        if await self._acts():
            return  # It was: what failed came behind the decision.
        if former in self._open and former != self._node:
            with suppress(psycopg.Error):
                await self._open[former].execute("select shardman.stay_lord(%s)", (epoch,))
        with suppress(psycopg.Error):
            await self._resume()

    async def _acts(self) -> bool:
        cur = await self._open[self._node].execute("select lord from shardman.local")
        return await cur.fetchone() == (True,)

    def _done(self, former: int) -> Promoted:
        away = sorted({n.id for n in self._reach.members} - self._open.keys())
        params = {k: v for k, v in self._reach.params(self._node).items() if k != "password"}
        return Promoted(self._node, make_conninfo("", **params), former, away)

    def _require_worker(self) -> None:
        row = self._reach.nodes.get(self._node)
        if row is None or not row.alive:
            known = ", ".join(str(n.id) for n in self._reach.members if n.status == "active")
            raise UserError(
                f"there is no worker {self._node}",
                f"The workers are: {known}",
                code=Code.NO_SUCH_NODE,
            )

    async def _former(self) -> int:
        """The lord by the newest metadata that can be read."""
        positions = await self._positions()
        newest = max(self._open, key=lambda node: positions.get(node, -1))
        cur = await self._open[newest].execute("select id from shardman.nodes where lord")
        row = await cur.fetchone()
        return int(row[0]) if row else self._reach.lord

    async def _positions(self) -> dict[int, int]:
        """How new the metadata of each worker are. What is the lord's is newer than any copy."""
        found = {}
        for node, conn in self._open.items():
            cur = await conn.execute(
                "select shardman.copy_position() as at, shardman.setting('lord_term', '0')::numeric as term,"
                " exists (select from shardman.nodes where lord and id = l.node_id) as lord"
                " from shardman.local l where l.cluster = %s and l.node_id = %s",
                (self._reach.cluster, node),
            )
            row = await cur.fetchone()
            if row is not None:
                at, term, lord = row
                found[node] = int((term + 1) * 2**64 - 1 if lord else at)
        return found

    async def _require_newest(self) -> None:
        """A copy that lacks what another one has must not become the lord's; what the lord itself has is
        awaited."""
        positions = await self._positions()
        lords = {await self._former()} - {self._node}
        rivals = {n: at for n, at in positions.items() if n not in lords}
        best = max(rivals, key=lambda n: rivals[n])
        if rivals[best] > positions[self._node]:
            raise UserError(
                f"the metadata of node {self._node} are older than those of node {best}",
                f"Promote node {best}, which has the newest",
                code=Code.NODE_BEHIND,
            )

    async def _cut_over(self, former: int) -> int:
        """From here on every node that can be reached refuses the shardlord of the former lord."""
        newest = 0
        for conn in self._open.values():
            row = await (await conn.execute("select shardman.newest_epoch()")).fetchone()
            newest = max(newest, int(row[0]) if row else 0)
        epoch = (names.term(newest) + 1) << names.TERM_SHIFT
        # On the lord first, where the shardlord cannot do without its sessions.
        for node in sorted(self._open, key=lambda n: n != former):
            conn = self._open[node]
            # Committed before the others' sessions end: they would come back and wait.
            await conn.execute(
                "update shardman.local set epoch = %s where epoch < %s", (epoch, epoch)
            )
            await conn.execute("select shardman.end_older_lords(%s)", (epoch,))
        return epoch

    async def _catch_up(self, former: int, epoch: int) -> None:
        """The lord accepts nothing more, and the worker's copy gets all that it has."""
        lord = self._open[former]
        try:
            cur = await lord.execute("select shardman.step_down(%s)", (epoch,))
        except psycopg.errors.LockNotAvailable:
            raise UserError(
                "a client has submitted a command in a transaction that it keeps open",
                "End that transaction and try again",
                code=Code.TRANSACTION_OPEN,
            ) from None
        row = await cur.fetchone()
        assert row is not None
        if former not in await self._positions():
            return
        if self._slot not in await slots.ls(lord, self._slot):
            if self._force:
                return
            raise UserError(
                f"node {self._node} does not follow the lord: nothing carries its changes there",
                "Choose another worker, or give --force to take what the worker has for the truth",
                code=Code.REPLICATION_STALLED,
            )
        until = time.monotonic() + CATCH_UP_S
        while not await slots.confirmed(lord, self._slot, row[0]):
            if time.monotonic() > until:
                raise UserError(
                    f"node {self._node} does not get the lord's last changes",
                    "See the log of its server, then run the same command again",
                    code=Code.REPLICATION_STALLED,
                )
            await asyncio.sleep(0.02)

    async def _cut_off(self) -> None:
        """A lord that is out of our reach, but not out of the workers', can have nothing confirmed by
        them any more."""
        for node, conn in self._open.items():
            await _disable(conn, names.meta_slot(self._reach.cluster, node))

    async def _resume(self) -> None:
        for node, conn in self._open.items():
            await subscriptions.enable(conn, names.meta_slot(self._reach.cluster, node))

    async def _decide(self, epoch: int) -> None:
        conn = self._open[self._node]
        await _disable(conn, self._slot)
        async with conn.transaction():
            await subscriptions.drop(conn, self._slot)
            await conn.execute("select shardman.become_lord(%s)", (epoch,))
            await publish_metadata(conn, self._reach.cluster)


async def _disable(conn: Connection, name: str) -> None:
    try:
        await subscriptions.disable(conn, name)
    except Temporary as error:
        raise UserError(str(error), "Run the same command again", code=error.code) from None
