"""What the table is: as it was described, as other nodes can have it, and whether it is so still."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psycopg
from psycopg.types.json import Jsonb

from shardman import names
from shardman.errors import Code, UserError
from shardman.model.plan import Json
from shardman.pg.connection import Connection
from shardman.steps.base import PrepareStep, Run, Scope, step
from shardman.steps.catalog import relation as find
from shardman.steps.catalog import value
from shardman.steps.locks import rolled_back


async def check_unchanged(conn: Connection, table: str, definition: dict[str, Json]) -> None:
    """Raises UserError when somebody has changed the table since it was described."""
    if await find(conn, table) is None:
        raise UserError(
            f"{table} was dropped or renamed while it was being sharded",
            "Try again",
            code=Code.CHANGED_MEANWHILE,
        )
    if changed := await value(
        conn, "select shardman.changed_definition(%s, %s)", table, Jsonb(definition)
    ):
        raise UserError(
            f"{table} was changed while it was being sharded ({changed})",
            "Try again",
            code=Code.CHANGED_MEANWHILE,
        )


@asynccontextmanager
async def explained(
    conn: Connection, table: str, definition: dict[str, Json]
) -> AsyncIterator[None]:
    """A statement that fails because somebody changes the table meanwhile says so."""
    try:
        yield
    except (psycopg.ProgrammingError, psycopg.DataError, psycopg.IntegrityError):
        await check_unchanged(conn, table, definition)
        raise


@step("check_definition")
@dataclass(frozen=True)
class CheckDefinition(PrepareStep):
    """Makes the table on every other node and takes it back at once: a type or a function of the
    user's that is missing there is noticed before anything is changed."""

    node: int
    relation: str
    definition: dict[str, Json]

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        lord = await run.node(0)
        cur = await lord.execute(
            "select id from shardman.nodes where (lord or worker_status = 'active') and id <> %s"
            " order by id",
            (self.node,),
        )
        for (node,) in await cur.fetchall():
            try:
                conn = await run.node(node)
            except psycopg.OperationalError:
                continue  # The plan has warned of it.
            await self._check(run, conn, node)

    async def _check(self, run: Run, conn: Connection, node: int) -> None:
        async with rolled_back(conn):
            await conn.execute("begin")
            try:
                await make_parent(conn, self.definition, names.shadow(self.relation, run.cmd_id))
            except psycopg.errors.DatabaseError as error:
                if isinstance(error, psycopg.OperationalError):
                    raise
                denied = isinstance(error, psycopg.errors.InsufficientPrivilege)
                raise UserError(
                    f"node {node} cannot have {self.relation}: {error.diag.message_primary}",
                    (denied and error.diag.message_hint)
                    or "Make what is missing on that node first",
                    code=Code.PERMISSION_DENIED if denied else Code.OBJECT_MISSING,
                ) from error
            await conn.execute("rollback")


async def make_parent(conn: Connection, definition: dict[str, Json], name: str) -> None:
    """A partitioned parent without partitions."""
    await conn.execute("select shardman.make_parent(%s, %s)", (Jsonb(definition), name))


async def parts_of(conn: Connection, definition: dict[str, Json]) -> list[str]:
    """Names of a table's partitions, in the order of their numbers."""
    return list(
        await value(
            conn,
            "select array_agg(shardman.suffixed(%s, '_' || k) order by k)"
            " from generate_series(0, %s - 1) as k",
            definition["relation"],
            definition["partitions_count"],
        )
    )
