"""What is left of the old partitions on a node."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from shardman import names
from shardman.errors import UserError
from shardman.pg.connection import Connection
from shardman.steps.base import FinishStep, Run, Scope, step
from shardman.steps.catalog import need_relation, value, written
from shardman.steps.catalog import relation as find
from shardman.steps.convergence import await_metadata
from shardman.steps.locks import LIMIT_S, Deadline, begin_locked, patiently, rolled_back
from shardman.steps.prepared import released
from shardman.steps.references import held
from shardman.steps.split.tables import drop_servers, stop_log
from shardman.tasks import all_of

#: How long a node may take to hear of the new partitions, whose indexes take their names then.
HEAR_S = 10.0

_REFERS = (
    "select exists (select from pg_constraint"
    " where contype = 'f' and conrelid = shardman.find_relation(%s))"
)
_DROP_REFERENCES = "select shardman.drop_references(shardman.find_relation({}))"


@step("split_clear")
@dataclass(frozen=True)
class SplitClear(FinishStep):
    """Drops the old data tables of a node, whose rows are proven to be in the new ones, and the logs.

    Args:
        referred: the shared tables that foreign keys of the tables refer to.
        beside: the tables that are colocated with it.
    """

    leaves = "the old data tables, out of use and renamed"

    node: int
    relation: str
    former: int
    referred: list[str]
    beside: list[str] = field(default_factory=list)

    def scope(self) -> Scope:
        return Scope.of([self.node])

    async def do(self, run: Run) -> None:
        conn = await released(run, self.node)
        tables = [self.relation, *self.beside]
        old = [name for relation in tables for name in await self._asides(run, conn, relation)]
        # First all foreign keys: they lead from old data tables to old ones.
        for name in old:
            if await value(conn, _REFERS, name):
                off = sql.SQL(_DROP_REFERENCES).format(sql.Literal(name))
                await self._locked(run, conn, name, off)
        for name in old:
            await self._drop(run, conn, name)
        for relation in tables:
            await conn.execute("select shardman.drop_split(%s, %s)", (relation, run.cmd_id))
            await stop_log(run, relation, self.node, conn)
        await await_metadata(run, self.node, HEAR_S)
        for relation in tables:
            await conn.execute("select shardman.settle_names(%s)", (relation,))

    async def _asides(self, run: Run, conn: Connection, relation: str) -> list[str]:
        """The old data tables of a table that are there, by name."""
        schema, _ = names.unquote(relation)
        found = []
        for j in range(self.former):
            part = await value(conn, "select shardman.suffixed(%s, %s)", relation, f"_{j}")
            name = names.quoted(schema, names.set_aside(str(part), run.cmd_id))
            if await find(conn, name) is not None:
                found.append(name)
        return found

    async def _locked(self, run: Run, conn: Connection, name: str, statement: sql.Composed) -> None:
        """Does something under a lock on an old data table."""

        async def attempt(deadline: Deadline) -> None:
            # Foreign keys have a say in what is deleted from shared tables.
            async with held(run, self.referred, [conn]), rolled_back(conn):
                await begin_locked(conn, [name], "access exclusive", deadline, self.node)
                await conn.execute(statement)
                await conn.execute("commit")

        await patiently(run, attempt, limit_s=LIMIT_S)

    async def _drop(self, run: Run, conn: Connection, name: str) -> None:
        table = await need_relation(conn, name)
        try:
            await self._locked(run, conn, name, sql.SQL("drop table {}").format(table))
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
    them for a while; then each node's own reconciliation drops them, as it does on a node that is away."""

    leaves = "foreign servers of the routes, which work"
    each_by_itself = True

    members: list[int]
    owners: list[int]

    def scope(self) -> Scope:
        return Scope.of(self.members)

    async def do(self, run: Run) -> None:
        async def end(node: int) -> None:
            with suppress(psycopg.OperationalError, UserError):
                await drop_servers(run, await released(run, node), self.owners)

        await all_of(*(end(node) for node in self.members))
