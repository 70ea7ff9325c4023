"""The step behind every change: each node's own reconciliation with the metadata."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field

import psycopg

from shardman import names
from shardman.errors import Code, Temporary, UserError
from shardman.pg.connection import Connection
from shardman.steps.base import FinishStep, Run, Scope, step
from shardman.steps.catalog import value
from shardman.steps.eviction import lock_evicting
from shardman.tasks import all_of

#: How long a command waits for nodes to follow. What is left then is the reconciler's business.
CONVERGE_S = 2.0


def say_cut_over(run: Run) -> None:
    """Tells how long clients of the partition were held, from the first lock to the last commit."""
    took = run.figures.cut_over.ms
    if took is not None:
        run.say(f"Cut-over {took:.0f} ms at try {run.figures.cut_over.tries}.")


async def await_metadata(run: Run, node: int, seconds: float) -> bool:
    """Waits until a node has the metadata of now; whether it has."""
    if node == 0:
        return True
    deadline = time.monotonic() + seconds
    lord = await run.node(0)
    target = await value(lord, "select pg_current_wal_insert_lsn()")
    pauses = itertools.chain(itertools.repeat(0.002, 5), itertools.repeat(0.01))
    while not await value(
        lord,
        "select n.lord or exists (select from pg_replication_slots"
        " where slot_name = %s and confirmed_flush_lsn >= %s::pg_lsn)"
        " from shardman.nodes n where n.id = %s",
        names.meta_slot(run.cluster_id, node),
        target,
        node,
    ):
        if time.monotonic() > deadline:
            return False
        await lord.execute("select shardman.emit()")
        await asyncio.sleep(next(pauses))
    return True


async def _exchange(conn: Connection, part: str) -> None:
    await conn.execute("select shardman.mend_partition(%s, 'exchange route')", (part,))


@step("converge")
@dataclass(frozen=True)
class Converge(FinishStep):
    """Waits a little until all nodes that can be reached follow the metadata.

    Args:
        relation: of one table; None: of all.
        promoted: partitions whose replicas took over from a dead node. Nothing is forwarded over routes to
            it, so they are exchanged whatever transactions are open, and sessions that hold them are ended.
            What a transaction has seen of them on the new primary's node, as a replica, it still sees.
    """

    leaves = "nodes that do not follow the change yet"
    clears = "each node by itself, when the metadata reach it; the reconciler"

    # What leads to a new primary that is not in its partition yet waits there, behind the lock by which it gets
    # there: so a session that cannot be ended on one node holds up nobody on the others.
    concurrent_with = frozenset({"drop_old_copy", "promote"})

    relation: str | None = None
    promoted: list[str] = field(default_factory=list)

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        say_cut_over(run)
        lord = await run.node(0)
        cur = await lord.execute(
            "select id from shardman.nodes where lord or worker_status = 'active' order by id"
        )
        nodes = [int(r[0]) for r in await cur.fetchall()]
        held = [each for each in await all_of(*(self._node(run, n) for n in nodes)) if each]
        if held:
            raise Temporary("; ".join(held), code=Code.LOCK_TIMEOUT)

    async def _node(self, run: Run, node: int) -> str | None:
        """Returns what could not be done and must be."""
        deadline = time.monotonic() + CONVERGE_S
        try:
            # Not the main one: on the lord's own node the others' tasks ask in that meanwhile.
            async with run.extra_session(node) as conn:
                await await_metadata(run, node, CONVERGE_S)
                held = await self._reroute(run, node, conn)
                while await value(conn, "select shardman.reconcile(%s)", self.relation):
                    if time.monotonic() > deadline:
                        break
                    await asyncio.sleep(0.05)
                return held
        except (psycopg.OperationalError, UserError):
            # A node that is away learns of it when it is back; until then its routes are forwarded.
            run.say(f"Node {node} could not be reached and will follow when it is back.")
            return None

    async def _reroute(self, run: Run, node: int, conn: Connection) -> str | None:
        """Exchanges the routes to the dead node."""
        if not self.promoted:
            return None
        cur = await conn.execute(
            "select part_name from shardman.partition_state"
            " where part_name = any (%s) and action = 'exchange route'",
            (self.promoted,),
        )
        parts = [r[0] for r in await cur.fetchall()]
        held = await lock_evicting(run, node, parts, _exchange)
        return f"{', '.join(held)} cannot be locked on node {node}" if held else None
