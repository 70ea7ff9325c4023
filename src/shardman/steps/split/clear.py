"""What is left of the old partitions on a node."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

from shardman import names
from shardman.pg.connection import Connection
from shardman.steps.base import FinishStep, Run, Scope, step
from shardman.steps.catalog import relation as find
from shardman.steps.catalog import value, written
from shardman.steps.convergence import await_metadata
from shardman.steps.locks import LIMIT_S, Deadline, begin_locked, patiently, rolled_back
from shardman.steps.prepared import end_prepared
from shardman.steps.references import held
from shardman.steps.split.tables import end_servers, stop_log

#: How long a node may take to hear of the new partitions, whose indexes take their names then.
HEAR_S = 10.0


@step("split_clear")
@dataclass(frozen=True)
class SplitClear(FinishStep):
    """Drops the old data tables of a node, whose rows are proven to be in the new ones, and the log.

    Args:
        referred: the shared tables that foreign keys of the table refer to.
    """

    leaves = "the old data tables, out of use and renamed"

    node: int
    relation: str
    former: int
    referred: list[str]

    def scope(self) -> Scope:
        return Scope.of([self.node])

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        await end_prepared(run, self.node, "commit")
        schema, _ = names.unquote(self.relation)
        for j in range(self.former):
            part = await value(conn, "select shardman.suffixed(%s, %s)", self.relation, f"_{j}")
            aside = names.set_aside(str(part), run.cmd_id)
            if (table := await find(conn, names.quoted(schema, aside))) is not None:
                await self._drop(run, conn, names.quoted(schema, aside), table)
        await conn.execute("select shardman.drop_split(%s, %s)", (self.relation, run.cmd_id))
        await stop_log(run, self.node, conn)
        await await_metadata(run, self.node, HEAR_S)
        await conn.execute("select shardman.settle_names(%s)", (self.relation,))

    async def _drop(self, run: Run, conn: Connection, name: str, table: sql.Identifier) -> None:
        """With its foreign keys, which have a say in what is deleted from shared tables."""

        async def attempt(deadline: Deadline) -> None:
            async with held(run, self.referred, [conn]), rolled_back(conn):
                await begin_locked(conn, [name], "access exclusive", deadline, self.node)
                await conn.execute(
                    "select shardman.drop_references(shardman.find_relation(%s))", (name,)
                )
                await conn.execute(sql.SQL("drop table {}").format(table))
                await conn.execute("commit")

        try:
            await patiently(run, attempt, limit_s=LIMIT_S)
        except psycopg.errors.DependentObjectsStillExist as error:
            schema, aside = names.unquote(name)
            run.say(
                f"An old data table is left as {aside} on node {self.node}: {error.diag.message_detail}"
            )
            run.figures.keep(self.node, [await written(conn, schema, aside)])


@step("end_split_servers")
@dataclass(frozen=True)
class EndSplitServers(FinishStep):
    """Drops the second foreign servers. Where a transaction older than the exchange is open, routes stay on
    them for a while; then each node's own reconciliation drops them."""

    leaves = "foreign servers of the routes, which work"
    each_by_itself = True

    members: list[int]
    owners: list[int]

    def scope(self) -> Scope:
        return Scope.of(self.members)

    async def do(self, run: Run) -> None:
        await end_servers(run, self.members, self.owners)
