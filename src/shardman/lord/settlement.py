"""What becomes of cut-overs when the lord's database is lost and this process lives: their clients must not
wait for it longer than needed.

- The COMMIT of the switch was not sent: it never will be, for its session was this process's own. What is
  prepared is rolled back, as the next leadership's recovery would.
- It may have been sent: the decision is looked for in the workers' copies of the metadata. What one of them
  has was durable in the lord's database before it was sent there. It is committed, as `CommitPrepared` would.
- No worker that answers has it: it stays. The lord's database may have it on its disk alone, so "found nowhere"
  does not mean "did not happen"; its journal decides when it is back, or the copy that is promoted.

Nothing here acts for longer than the epoch lasts: each session is admitted by the last leadership's, and a
newer one refuses and ends it. A name has its attempt in it, so nothing that a newer one prepares is meant.
Recovery finds less to do, and is right whatever was done here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress

import psycopg
import structlog
from psycopg import sql

from shardman import names
from shardman.errors import Refused, UserError
from shardman.lord.in_doubt import Decision, Doubts, InDoubt
from shardman.lord.sessions import Sessions
from shardman.pg.connection import Connection
from shardman.sql.loader import queries
from shardman.tasks import each_of

log = structlog.get_logger()

#: How long the workers are asked for a decision. One that has received it applies it within this.
ASK_S = 1.5
#: How long one node may take, to be asked or to end what is prepared there.
NODE_S = 2.0
#: A look at a node takes milliseconds.
LOOK_S = 0.05
UNDECIDED = (
    "the lord's database was lost while it decided on a cut-over, and no worker that answers has the decision."
    " Statements on the partition, and on the whole table, wait on these nodes. Start the lord's database,"
    " or promote another one with shardman promote-lord and start a shardlord for it."
)
_NO_ANSWER = (psycopg.Error, UserError, TimeoutError)


class Settlement:
    """One round; whoever still has no lord's database comes again.

    Args:
        doubts: what is ended is taken out of it.
        sessions: of the epoch of the leadership that is over.
    """

    def __init__(self, doubts: Doubts, sessions: Sessions) -> None:
        self._doubts = doubts
        self._sessions = sessions

    async def run(self) -> None:
        """Ends what can be ended, within seconds."""
        await each_of(*(self._one(doubt) for doubt in self._doubts.all()))

    async def _one(self, doubt: InDoubt) -> None:
        try:
            if doubt.decision is Decision.NEVER:
                ends = [self._end(doubt, node, "rollback") for node in [*doubt.nodes]]
                self._say(doubt, "rolled back", await each_of(*ends))
            elif doubt.decision is Decision.CERTAIN or await self._found(doubt):
                doubt.decision = Decision.CERTAIN
                # One after the other: the new primary comes last.
                nodes = [*doubt.nodes]
                self._say(doubt, "committed", [await self._end(doubt, n, "commit") for n in nodes])
            else:
                self._tell(doubt)
        except Refused:
            # A newer leadership has it in its journal.
            self._doubts.forget(doubt.cmd_id)

    async def _found(self, doubt: InDoubt) -> bool:
        """Whether a worker has the decision."""
        until = time.monotonic() + ASK_S
        asked = [
            asyncio.create_task(self._has(doubt, node, until)) for node in self._sessions.known()
        ]
        try:
            for answer in asyncio.as_completed(asked):
                if await answer:
                    return True
            return False
        finally:
            for task in asked:
                task.add_done_callback(_let_go)
                task.cancel()

    async def _has(self, doubt: InDoubt, node: int, until: float) -> bool:
        try:
            async with asyncio.timeout(NODE_S), self._sessions.on_known(node) as conn:
                while True:
                    cur = await conn.execute(
                        queries("journal")["has_switched"],
                        {"id": doubt.cmd_id, "attempt": doubt.attempt},
                    )
                    if await cur.fetchone() is not None:
                        return True
                    if time.monotonic() > until:
                        return False
                    await asyncio.sleep(LOOK_S)
        except _NO_ANSWER:
            return False

    async def _end(self, doubt: InDoubt, node: int, verb: str) -> bool:
        """Commits or rolls back on a node; whether nothing stands there any more."""
        pid = doubt.nodes[node]
        gid = names.prepared(self._sessions.cluster_id, doubt.cmd_id, doubt.attempt, node)
        try:
            async with asyncio.timeout(NODE_S), self._sessions.on_known(node) as conn:
                await _end(conn, gid, pid, verb)
        except _NO_ANSWER as error:
            if doubt.first(node):
                log.warning("in doubt", cmd=doubt.cmd_id, node=node, error=str(error) or "timeout")
            return False
        self._doubts.ended(doubt.cmd_id, node)
        return True

    def _say(self, doubt: InDoubt, how: str, ended: Sequence[bool]) -> None:
        if all(ended):
            log.warning(
                "the lord's database was lost inside a cut-over",
                cmd=doubt.cmd_id,
                what=doubt.what,
                result=how,
            )

    def _tell(self, doubt: InDoubt) -> None:
        if doubt.first(0):
            log.error(UNDECIDED, cmd=doubt.cmd_id, what=doubt.what, nodes=[*doubt.nodes])


def _let_go(asked: asyncio.Task[bool]) -> None:
    """Nobody waits for its answer any more: a node that hangs must not hold up the others."""
    if not asked.cancelled():
        asked.exception()


async def _end(conn: Connection, gid: str, pid: int, verb: str) -> None:
    """Ends a prepared transaction; returns when it is not there and will not be any more.

    Args:
        pid: of the session that was to prepare it. As long as that is there, it may still do so.
    """
    while True:
        # First this: what it has prepared before it ended is seen next.
        cur = await conn.execute(queries("journal")["may_prepare"], {"pid": pid})
        alive = await cur.fetchone() is not None
        cur = await conn.execute(queries("journal")["is_prepared"], {"gid": gid})
        if await cur.fetchone() is not None:
            # Otherwise a session of ours that is about to end was at it.
            with suppress(
                psycopg.errors.ObjectNotInPrerequisiteState, psycopg.errors.UndefinedObject
            ):
                await conn.execute(sql.SQL(f"{verb} prepared {{}}").format(sql.Literal(gid)))
                return
        elif not alive:
            return
        await asyncio.sleep(LOOK_S)
