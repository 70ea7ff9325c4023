"""The step that cleans a node that was removed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from shardman.errors import Code, RemovedNodeAway, Temporary, UserError
from shardman.pg.connection import Connection
from shardman.pg.schema import remove
from shardman.steps.base import FinishStep, Run, Scope, step
from shardman.steps.catalog import value
from shardman.steps.locks import LIMIT_S, Deadline, patiently
from shardman.steps.nodes.clearing import (
    READERS,
    drop_streams,
    forget,
    locking,
    reconciled_by_nobody,
    roll_back_prepared,
    wait_for_nobody,
)
from shardman.steps.state import NodeCleaning, State

#: A node that hangs must not keep the command that removes it.
CLEAN_S = 15.0


@step("clean_node")
@dataclass(frozen=True)
class CleanNode(FinishStep):
    """Takes our objects off a removed node; its tables stay.

    One that was dead when it was removed, and comes back, believes that it is a member still and that its
    old primaries are in use. It is cleaned as soon as it answers; these become ordinary tables under
    other names, and nothing leads to the cluster from there any more.
    """

    leaves = "objects of ours on that node"

    for_removed = True

    node: int

    def scope(self) -> Scope:
        return Scope.of([self.node])

    def state(self) -> Sequence[State]:
        return (NodeCleaning(self.node),)

    async def do(self, run: Run) -> None:
        try:
            async with asyncio.timeout(CLEAN_S):
                await self._clean(run, await run.node(self.node))
        except (RemovedNodeAway, psycopg.OperationalError, TimeoutError) as error:
            reason = (error.__cause__ or error) if isinstance(error, RemovedNodeAway) else error
            # One that does not know this cluster any more was cleaned before.
            if not isinstance(reason, UserError):
                raise Temporary(
                    f"node {self.node} cannot be reached and believes that it is a member until it"
                    " is: keep its server from being used",
                    code=Code.NODE_UNREACHABLE,
                ) from error
        # Its address is not needed any more.
        lord = await run.node(0)
        await lord.execute("delete from shardman.node_secrets where node_id = %s", (self.node,))

    async def _clean(self, run: Run, conn: Connection) -> None:
        # The database may have been added again meanwhile, under another id.
        if await value(conn, "select node_id from shardman.local") != self.node:
            return
        await roll_back_prepared(conn)
        await conn.execute("select shardman.evict_waiting_commits()")
        await drop_streams(conn)
        if await self._was_replaced(run, conn):
            aside = await forget(run, conn, self.node)
            run.say(f"Node {self.node} came back and was cleaned; its tables: {', '.join(aside)}.")
            run.figures.keep(self.node, aside)
            return
        await wait_for_nobody(conn)

        async def attempt(deadline: Deadline) -> None:
            async with locking(conn, deadline, f"{READERS} on node {self.node}"):
                await reconciled_by_nobody(conn)
                await conn.execute("select shardman.reset_database()")
                await remove(conn)

        await patiently(run, attempt, limit_s=LIMIT_S)

    async def _was_replaced(self, run: Run, conn: Connection) -> bool:
        """Whether it has a primary in use that is elsewhere by now."""
        elsewhere = await value(
            await run.node(0),
            "select coalesce(array_agg(part_name), '{}') from shardman.partitions"
            " where prv is null and owner <> %s",
            self.node,
        )
        return bool(
            await value(
                conn,
                "select exists (select from unnest(%s::text[]) as p"
                " where shardman.is_in_use(shardman.data_table(p)))",
                elsewhere,
            )
        )
