"""The step that clears what a former cluster left in a database that becomes a node."""

from __future__ import annotations

from dataclasses import dataclass

from shardman.pg.connection import Connection
from shardman.pg.schema import install
from shardman.steps.base import PrepareStep, Run, Scope, step
from shardman.steps.catalog import value
from shardman.steps.nodes.clearing import drop_streams, forget, roll_back_prepared


@step("forget_former")
@dataclass(frozen=True)
class ForgetFormer(PrepareStep):
    """Clears what a former cluster left: our objects, never user data. Not undone."""

    leaves = "part of what was there; what is cleared stays cleared"
    clears = "the next attempt"

    node: int

    def scope(self) -> Scope:
        return Scope.of([self.node])

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        if not await self._was_node(conn):
            return
        # What streams into or out of the old tables goes first: it would hold them.
        await roll_back_prepared(conn)
        await drop_streams(conn)
        await install(conn)
        aside = await forget(run, conn, self.node)
        # A shardlord of the former cluster that lives may have subscribed again meanwhile; now that the schema
        # is gone it is refused.
        await drop_streams(conn)
        run.say("The database was part of a cluster before; that state was removed.")
        if aside:
            run.say("Tables with data were set aside there: " + ", ".join(aside) + ".")
            run.figures.keep(self.node, aside)

    async def _was_node(self, conn: Connection) -> bool:
        return bool(
            await value(
                conn,
                "select to_regclass('shardman.local') is not null or exists (select"
                " from pg_foreign_server where srvname ~ '^shardman_node_[0-9]+(_c[0-9]+)?$')",
            )
        )
