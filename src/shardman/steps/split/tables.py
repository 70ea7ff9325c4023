"""The new data tables, and the log of what is written to the old ones."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from shardman import names
from shardman.pg import publications
from shardman.pg.bounded import unhurried
from shardman.pg.connection import Connection
from shardman.steps.base import Made, PrepareStep, Run, Scope, UndoableStep, step
from shardman.steps.catalog import data_table, need_relation, value
from shardman.steps.channels.tables import refresh
from shardman.steps.confirmation import catch_up, quiet
from shardman.steps.locks import begin_locked, execute_patiently, patiently, rolled_back
from shardman.steps.split.base import OfSplit, on_each, rows

#: How long a lock is waited for when something is taken back; the janitor comes again.
UNDO_S = 15.0


@step("split_log")
@dataclass(frozen=True)
class SplitLog(OfSplit, UndoableStep):
    """From here on every write to a copy of an old partition leaves its key in a log on that node."""

    leaves = "triggers and logs: writes go on, a little slower"

    def makes(self) -> Made:
        return Made(f"the log of writes to the partitions of {self.relation}")

    async def do(self, run: Run) -> None:
        async def start(node: int, conn: Connection) -> None:
            tables = [
                await data_table(
                    conn,
                    await value(conn, "select shardman.suffixed(%s, %s)", self.relation, f"_{j}"),
                )
                for j in self.olds(node)
            ]
            await conn.execute(
                "select shardman.make_split_log(%s, %s, %s)", (self.relation, tables[0], run.cmd_id)
            )
            for table in tables:
                async with rolled_back(conn):
                    await patiently(
                        run,
                        lambda deadline, table=table: begin_locked(  # type: ignore[misc]
                            conn, [table], "share row exclusive", deadline, node
                        ),
                    )
                    await conn.execute(
                        "select shardman.start_split_log(%s, %s, %s)",
                        (self.relation, table, run.cmd_id),
                    )
                    await conn.execute("commit")

        await on_each(run, self.holders, start)

    async def undo(self, run: Run) -> None:
        async def stop(node: int, conn: Connection) -> None:
            await stop_log(run, self.relation, node, conn)

        await on_each(run, self.holders, stop)


async def stop_log(run: Run, relation: str, node: int, conn: Connection) -> None:
    """Drops the log of a table on a node with all that belongs to it."""
    for (table,) in await rows(conn, "select shardman.split_logged(%s, %s)", relation, run.cmd_id):
        off = sql.SQL("select shardman.stop_split_log({}, {}, {})").format(
            *map(sql.Literal, (relation, table, run.cmd_id))
        )
        await execute_patiently(run, conn, node, table, off, limit_s=UNDO_S)
    await conn.execute("select shardman.drop_split_log(%s, %s)", (relation, run.cmd_id))


@step("split_tables")
@dataclass(frozen=True)
class SplitTables(OfSplit, UndoableStep):
    """The new data tables on each node, empty, beside the old ones."""

    def makes(self) -> Made:
        return Made(f"new data tables of {self.relation}")

    async def do(self, run: Run) -> None:
        async def make(node: int, conn: Connection) -> None:
            # One transaction: a new table is never there without hanging on the split.
            async with conn.transaction():
                await conn.execute(
                    "select shardman.make_split(%s, %s, %s, %s)",
                    (self.described, self.former, self.ranks(node), run.cmd_id),
                )

        await on_each(run, self.holders, make)

    async def undo(self, run: Run) -> None:
        async def drop(_: int, conn: Connection) -> None:
            async with conn.transaction():
                await conn.execute(
                    "select shardman.drop_split(%s, %s)", (self.relation, run.cmd_id)
                )

        await on_each(run, self.holders, drop)


@step("split_indexes")
@dataclass(frozen=True)
class SplitIndexes(OfSplit, PrepareStep):
    """Keys, indexes and statistics of the new data tables, built when their rows are in."""

    leaves = "indexes; they go with the new data tables"

    async def do(self, run: Run) -> None:
        async def build(node: int, conn: Connection) -> None:
            for k in self.ranks(node):
                with unhurried(conn):
                    await conn.execute(
                        "select shardman.make_split_indexes(%s, %s, %s, %s)",
                        (self.described, self.former, k, run.cmd_id),
                    )
                    made = await made_table(conn, self, k, run.cmd_id)
                    await conn.execute(
                        sql.SQL("analyze {}").format(await need_relation(conn, made))
                    )

        await on_each(run, self.holders, build)


async def made_table(conn: Connection, split: OfSplit, k: int, cmd_id: int) -> str:
    """What the data table of new partition k is called before the exchange."""
    return str(
        await value(
            conn,
            "select shardman.data_table(shardman.part_being_made(%s, %s, %s, %s))",
            *(split.relation, k, split.former, cmd_id),
        )
    )


@step("split_register")
@dataclass(frozen=True)
class SplitRegister(OfSplit, UndoableStep):
    """Makes channels know the new data tables of replicas, without letting a row of them through."""

    def makes(self) -> Made:
        return Made(f"new data tables of {self.relation} in channels")

    async def do(self, run: Run) -> None:
        for (src, dest), ranks in self.channels.items():
            name = names.channel(run.cluster_id, src, dest)
            source = await run.node(src)
            carried = await publications.carried(source, name)
            for k in ranks:
                made = await made_table(source, self, k, run.cmd_id)
                if made not in carried:
                    table = await need_relation(source, made)
                    await publications.add(source, name, table, closed=True)
            await catch_up(run, source, name)
            await quiet(source, name)
            await refresh(run, name, source, dest)

    async def undo(self, run: Run) -> None:
        for (src, dest), ranks in self.channels.items():
            name = names.channel(run.cluster_id, src, dest)
            source = await run.node(src)
            for k in ranks:
                made = await made_table(source, self, k, run.cmd_id)
                if made in await publications.carried(source, name):
                    await publications.remove(source, name, await need_relation(source, made))
            await quiet(source, name)
            await refresh(run, name, source, dest)


@step("split_servers")
@dataclass(frozen=True)
class SplitServers(UndoableStep):
    """On every node, a second foreign server for each node that has primaries: see `steps.tables.FreshRoute`.

    Args:
        members: all nodes.
        owners: of primaries.
    """

    members: list[int]
    owners: list[int]

    def scope(self) -> Scope:
        return Scope.of(self.members)

    def makes(self) -> Made:
        return Made("foreign servers for the new partitions' routes")

    async def do(self, run: Run) -> None:
        async def make(node: int, conn: Connection) -> None:
            for owner in self.owners:
                if owner != node:
                    server = names.fresh_server(owner, run.cmd_id)
                    await conn.execute("select shardman.make_fresh_server(%s, %s)", (owner, server))

        await on_each(run, self.members, make)

    async def undo(self, run: Run) -> None:
        await end_servers(run, self.members, self.owners)


async def end_servers(run: Run, members: list[int], owners: list[int]) -> None:
    """Drops those that no route is on."""

    async def drop(_: int, conn: Connection) -> None:
        await drop_servers(run, conn, owners)

    await on_each(run, members, drop)


async def drop_servers(run: Run, conn: Connection, owners: list[int]) -> None:
    """Drops a node's, but for those that a route is on."""
    for owner in owners:
        server = names.fresh_server(owner, run.cmd_id)
        await conn.execute("select shardman.drop_unused_server(%s)", (server,))
