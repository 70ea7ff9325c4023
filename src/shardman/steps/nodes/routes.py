"""The step that makes what a new node has of the sharded tables."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from shardman.errors import Code, UserError
from shardman.steps.base import PrepareStep, Run, Scope, step
from shardman.steps.catalog import value

#: Locks held by the application can delay the routes on a new node; so often is it tried again.
RECONCILE_TRIES = 40


@step("node_tables")
@dataclass(frozen=True)
class NodeTables(PrepareStep):
    """Servers, user mappings and routes, all by the node's own reconciliation."""

    leaves = "servers, user mappings and routes"
    clears = "undone with the schema"

    node: int

    def scope(self) -> Scope:
        return Scope.of([self.node])

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        left, tries = None, 0
        while tries < RECONCILE_TRIES:
            before, left = left, await value(conn, "select shardman.reconcile()")
            if not left:
                return
            # Many partitions are made in several transactions: that is no failed try.
            if left == before:
                tries += 1
                await asyncio.sleep(0.05)
        row = await (
            await conn.execute("select subject, problem, hint from shardman.drift limit 1")
        ).fetchone()
        what, why, hint = row or ("the node", "does not match the metadata", None)
        raise UserError(
            f"on the new node, {what}: {why}",
            hint or "Put it right there and try again",
            code=Code.NAME_TAKEN,
        )
