"""Prepared transactions: what a cut-over leaves on each of its nodes until the metadata has decided.

Whoever wants to use the partition waits while they stand, so each way out of here ends them:

- The cut-over fails, or the shardlord dies before the switch: they are rolled back by `undo`, the next
  shardlord's (`lord/recovery.py`) in the second case.
- It dies behind the switch: the next one commits them, as `CommitPrepared` would have.
- A node is away at that time: the janitor does the same when it is back. A restart of its server keeps them.
- The connection breaks while a server prepares: nobody knows of the transaction, which comes into being a
  moment later. `lord/watchers/prepared_leftovers.py` looks for such ones, and ends them as `cmd_log` says.
- The lord's database is lost, and the shardlord lives: `lord/settlement.py` ends what can be known.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import psycopg
from psycopg import sql

from shardman import names
from shardman.pg.connection import Connection
from shardman.steps.base import FinishStep, Run, Scope, step
from shardman.tasks import each_of


async def prepare(run: Run, what: str, sessions: Mapping[int, Connection]) -> None:
    """Ends the transactions of these sessions as ones that are prepared: they can be committed or rolled back
    in any session, and neither their locks nor what they have done are lost by a crash of ours or of a server.

    Args:
        what: the partition or table that they lock.
        sessions: by node, in the order in which they are to be committed.
    """
    run.prepares(what, {node: conn.info.backend_pid for node, conn in sessions.items()})
    # All answers are awaited: undoing must find what either has prepared.
    await each_of(*(_prepare(run, conn, node) for node, conn in sessions.items()))


async def prepare_gate(run: Run, sessions: Mapping[int, Connection]) -> None:
    """Prepares a second transaction on each node, to be committed when the first ones are on all of them."""
    await each_of(
        *(
            _prepare_as(conn, names.prepared_gate(run.cluster_id, run.cmd_id, run.attempt, node))
            for node, conn in sessions.items()
        )
    )


async def _prepare(run: Run, conn: Connection, node: int) -> None:
    await _prepare_as(conn, names.prepared(run.cluster_id, run.cmd_id, run.attempt, node))


async def _prepare_as(conn: Connection, gid: str) -> None:
    # One that has only locked would bring channels in two phases to a stand, on servers that lack a fix of
    # PostgreSQL's: see lord/watchers/empty_parts.py. With this there is something in it to be decoded.
    await conn.execute("select pg_logical_emit_message(true, 'shardman', '')")
    await conn.execute(sql.SQL("prepare transaction {}").format(sql.Literal(gid)))


async def _prepared_here(conn: Connection, run: Run, node: int) -> list[str]:
    """This command's prepared transactions on a node, of any attempt."""
    prefix = names.prepared_prefix(run.cluster_id, run.cmd_id)
    cur = await conn.execute(
        "select gid from pg_prepared_xacts where database = current_database()"
        " and starts_with(gid, %s) and gid like %s",
        (prefix, f"%\\_{node}"),
    )
    return [r[0] for r in await cur.fetchall()]


async def end_prepared(run: Run, node: int, verb: str, *, gate: bool = True) -> None:
    """Commits or rolls back what the command has prepared on a node; idempotent.

    Args:
        gate: also what keeps clients out.
    """
    conn = await run.node(node)
    for gid in await _prepared_here(conn, run, node):
        if not gate and int(gid.split("_")[-2]) >= names.GATE:
            continue
        # Whoever ended it since has done the same.
        with suppress(psycopg.errors.UndefinedObject):
            await conn.execute(sql.SQL(f"{verb} prepared {{}}").format(sql.Literal(gid)))
    if gate:
        run.prepared_ended(node)
        if verb == "commit":
            # As shardman.say_layout_changed() does: PostgreSQL refuses it in what is prepared, and a node of a
            # former version has no such function.
            await conn.execute("select pg_notify('shardman_layout', '')")


async def released(run: Run, node: int) -> Connection:
    """A session on a node on which nothing of the command is prepared any more.

    For what stands behind a release that goes on without nodes that are away: one that is back by then has the
    locks still, and who waited for them would wait for ever.
    """
    await end_prepared(run, node, "commit")
    return await run.node(node)


@step("commit_prepared")
@dataclass(frozen=True)
class CommitPrepared(FinishStep):
    """Commits the transaction that the cut-over prepared on a node."""

    leaves = "what was prepared on that node, with its locks"

    node: int
    cmd: int

    def scope(self) -> Scope:
        return Scope.of([self.node])

    async def do(self, run: Run) -> None:
        await end_prepared(run, self.node, "commit")
        run.figures.cut_over.end()
