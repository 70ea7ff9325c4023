"""Steps that end a command: prepared transactions, and every node's own reconciliation."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from shardman import names
from shardman.errors import Temporary, UserError
from shardman.steps.base import Connection, Run, step
from shardman.steps.catalog import value
from shardman.steps.rounds import in_rounds
from shardman.tasks import all_of

#: How long a command waits for nodes to follow. What is left then is the reconciler's business.
CONVERGE_S = 2.0


async def prepared_here(conn: Connection, run: Run, node: int) -> list[str]:
    """This command's prepared transactions on a node, of any attempt."""
    prefix = names.prepared_prefix(run.cluster_id, run.cmd_id)
    cur = await conn.execute(
        "select gid from pg_prepared_xacts where database = current_database()"
        " and starts_with(gid, %s) and gid like %s",
        (prefix, f"%\\_{node}"),
    )
    return [r[0] for r in await cur.fetchall()]


async def end_prepared(run: Run, node: int, verb: str) -> None:
    """Commits or rolls back what the command has prepared on a node; idempotent."""
    conn = await run.node(node)
    for gid in await prepared_here(conn, run, node):
        await conn.execute(sql.SQL(f"{verb} prepared {{}}").format(sql.Literal(gid)))


@step("commit_prepared")
@dataclass(frozen=True)
class CommitPrepared:
    """Commits the transaction that the fence prepared on a node."""

    node: int
    cmd: int

    async def do(self, run: Run) -> None:
        await end_prepared(run, self.node, "commit")
        run.memory["fence_ended"] = time.monotonic()

    async def undo(self, run: Run) -> None:
        """A finish step goes only forward."""


def say_fence(run: Run) -> None:
    """Tells how long clients of the partition were held, from the first lock to the last commit."""
    if "fence_begun" in run.memory and "fence_ended" in run.memory:
        took = (run.memory["fence_ended"] - run.memory["fence_begun"]) * 1000
        tries = run.memory.get("tries", 1)
        run.say(f"Fence {took:.0f} ms at try {tries}.")


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
class Converge:
    """Waits a little until all nodes that can be reached follow the metadata.

    Args:
        relation: of one table; None: of all.
        stranded: partitions that have left a dead node. Nothing is forwarded over routes to it, so they are
            exchanged whatever transactions are open, and sessions that hold them are ended. What a
            transaction has seen of them on the new primary's node, as a replica, it still sees.
    """

    relation: str | None = None
    stranded: list[str] = field(default_factory=list)

    async def do(self, run: Run) -> None:
        say_fence(run)
        lord = await run.node(0)
        cur = await lord.execute(
            "select id from shardman.nodes where lord or worker_status = 'active' order by id"
        )
        nodes = [int(r[0]) for r in await cur.fetchall()]
        held = [each for each in await all_of(*(self._node(run, n) for n in nodes)) if each]
        if held:
            raise Temporary("; ".join(held))

    async def _node(self, run: Run, node: int) -> str | None:
        """Returns what could not be done and must be."""
        deadline = time.monotonic() + CONVERGE_S
        try:
            # Not the main one: on the lord's own node the others' tasks ask in that meanwhile.
            async with run.borrow(node) as conn:
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
        if not self.stranded:
            return None
        cur = await conn.execute(
            "select part_name from shardman.partition_state"
            " where part_name = any (%s) and action = 'exchange route'",
            (self.stranded,),
        )
        parts = [r[0] for r in await cur.fetchall()]
        held = await in_rounds(run, node, parts, _exchange)
        return f"{', '.join(held)} cannot be locked on node {node}" if held else None

    async def undo(self, run: Run) -> None:
        """A finish step goes only forward."""
