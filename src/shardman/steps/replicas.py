"""Steps on the tables of replicas."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from shardman import names
from shardman.errors import Code, Temporary, UserError
from shardman.pg import subscriptions
from shardman.pg.connection import Connection
from shardman.steps.base import FinishStep, Made, Run, Scope, UndoableStep, step
from shardman.steps.catalog import data_table, is_attached, relation, value, written
from shardman.steps.channels.tables import leave_all
from shardman.steps.locks import LIMIT_S, execute_patiently


@step("read_only")
@dataclass(frozen=True)
class ReadOnly(UndoableStep):
    """Lets nothing write to a replica but the channel from its primary."""

    node: int
    part: str

    def scope(self) -> Scope:
        return Scope.of([self.node], [self.part])

    def makes(self) -> Made:
        return Made(f"the guard against writes to {self.part} on node {self.node}", shared=True)

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        await conn.execute(
            "select shardman.make_read_only(%s)", (await data_table(conn, self.part),)
        )

    async def undo(self, run: Run) -> None:
        conn = await run.node(self.node)
        name = await data_table(conn, self.part)
        if await relation(conn, name) is not None:
            writable = sql.SQL("select shardman.make_writable({})").format(sql.Literal(name))
            await execute_patiently(run, conn, self.node, name, writable, limit_s=LIMIT_S)


async def need_primary(run: Run, part: str) -> None:
    """A copy is dropped only while its primary is there: it could be the last one.

    Raises:
        Temporary: the primary is not where the metadata says.
        psycopg.OperationalError: its node cannot be reached.
    """
    owner = await value(
        await run.node(0),
        "select owner from shardman.partitions where part_name = %s and prv is null",
        part,
    )
    if owner is None:
        return  # The table is not sharded any more.
    conn = await run.node(owner)
    if not await is_attached(conn, await data_table(conn, part)):
        raise Temporary(
            f"the primary of {part} is not in use on node {owner}", code=Code.NODE_BEHIND
        )


async def _detached(conn: Connection, name: str) -> sql.Identifier | None:
    """A data table of ours that is no primary's."""
    if await is_attached(conn, name) or not await value(
        conn, "select shardman.is_data_table(%s)", name
    ):
        return None
    return await relation(conn, name)


async def drop_detached(run: Run, conn: Connection, node: int, part: str) -> None:
    """Drops a partition's data table unless it is a primary's, or not ours.

    Raises:
        Temporary: rows may still come for it, or somebody holds it.
    """
    name = await data_table(conn, part)
    if (table := await _detached(conn, name)) is None:
        return
    # A row that came for a table that is gone would stop the whole channel.
    if feeding := await leave_all(run, part, node, name):
        raise Temporary(
            f"{name} on node {node} still belongs to {', '.join(feeding)}", code=Code.BUSY
        )
    await execute_patiently(
        run, conn, node, name, sql.SQL("drop table {}").format(table), limit_s=LIMIT_S
    )


async def rename_detached(run: Run, conn: Connection, node: int, part: str) -> str | None:
    """Sets a partition's data table aside, unless it is a primary's, or not ours; its new name."""
    name = await data_table(conn, part)
    if (table := await _detached(conn, name)) is None:
        return None
    aside = names.set_aside(part, run.cmd_id)
    change = sql.SQL("alter table {} rename to {}").format(table, sql.Identifier(aside))
    await execute_patiently(run, conn, node, name, change, limit_s=LIMIT_S)
    return await written(conn, names.unquote(part)[0], aside)


@step("drop_replica")
@dataclass(frozen=True)
class DropReplica(FinishStep):
    """Drops a replica's table: its primary has every row of it. Nothing may come for it any more."""

    leaves = "a table that follows nobody"

    node: int
    part: str
    primary: int

    def scope(self) -> Scope:
        return Scope.of([self.node], [self.part])

    async def do(self, run: Run) -> None:
        if await value(await run.node(0), "select shardman.has_copy(%s, %s)", self.part, self.node):
            return  # A later command has made one again.
        await need_primary(run, self.part)
        conn = await run.node(self.node)
        name = await data_table(conn, self.part)
        table = await relation(conn, name)
        if table is None:
            return
        if await is_attached(conn, name) or not await value(
            conn, "select shardman.is_data_table(%s)", name
        ):
            raise UserError(
                f"{name} on node {self.node} is not the replica that it was",
                "Look at it before you drop it",
                code=Code.CHANGED_MEANWHILE,
            )
        channel = names.channel(run.cluster_id, self.primary, self.node)
        if name in await subscriptions.tables(conn, channel):
            raise UserError(
                f"{name} on node {self.node} still belongs to {channel}",
                'See what "shardman check" says',
                code=Code.BUSY,
            )
        await execute_patiently(
            run, conn, self.node, name, sql.SQL("drop table {}").format(table), limit_s=LIMIT_S
        )
