"""A restore point on all nodes."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass

import psycopg

from shardman.errors import Code, UserError
from shardman.pg.connection import Connection
from shardman.pg.wording import in_words
from shardman.sql.loader import queries
from shardman.steps import gates
from shardman.steps.base import PrepareStep, Scope, step
from shardman.steps.run import Run


@step("make_restore_points")
@dataclass(frozen=True)
class MakeRestorePoints(PrepareStep):
    """Makes them while no transaction of a client over several nodes is half done."""

    leaves = "the restore point on some nodes: choose another name then"
    waits = "clients that commit on several nodes, for 5 s at most"

    nodes: list[int]
    point: str

    def scope(self) -> Scope:
        return Scope.of(set(self.nodes) - {0})

    async def do(self, run: Run) -> None:
        async with AsyncExitStack() as stack:
            sessions = {
                n: await stack.enter_async_context(run.extra_session(n)) for n in self.nodes
            }
            async with gates.closed(sessions):
                for node, session in sessions.items():
                    run.say(f"Node {node}: {await self._make(node, session)}.")

    async def _make(self, node: int, session: Connection) -> str:
        """Where it is in the node's WAL."""
        try:
            cur = await session.execute(queries("snapshots")["restore_point"], (self.point,))
        except psycopg.errors.InsufficientPrivilege as error:
            raise UserError(
                f"{in_words(error).what} on node {node}",
                "Let a superuser there: grant execute on function pg_create_restore_point(text) to the"
                " cluster's role",
                code=Code.PERMISSION_DENIED,
            ) from None
        (lsn,) = await cur.fetchone() or ("",)
        return str(lsn)
