"""Brings the shadow up to date with what is in the log."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

from psycopg import sql
from psycopg.types.json import Jsonb

from shardman import names
from shardman.errors import Code, UserError
from shardman.pg.bounded import unhurried
from shardman.pg.connection import Connection
from shardman.pg.copy_pipe import Pump
from shardman.steps.base import OfTable, PrepareStep, Run, step
from shardman.steps.catalog import relation as find
from shardman.steps.catalog import value
from shardman.steps.conversion.definition import check_unchanged, explained
from shardman.steps.conversion.shadow import keys_of
from shardman.steps.copy import carried, copy_shape
from shardman.steps.following import follow
from shardman.steps.locks import rolled_back
from shardman.tasks import all_of

#: What is replayed within this fits into a cut-over.
SHORT_S = 0.03


@dataclass(frozen=True)
class Replay:
    """How what is in the log gets to the nodes.

    Args:
        keys: the columns of the key.
        staged: by node, the query that gives the rows for it as its staging table has them.
        staged_keys: as that, without the rows.
        form: of a COPY.
    """

    table: OfTable
    keys: Jsonb
    staged: Mapping[int, str]
    staged_keys: Mapping[int, str]
    form: str

    @property
    def _source(self) -> int:
        return self.table.node

    async def stage(
        self, run: Run, conns: Mapping[int, Connection], queries: Mapping[int, str]
    ) -> None:
        """Fills the staging tables; the source's session is in a transaction."""
        source = conns[self._source]
        staging = f"shardman.rows_c{run.cmd_id}"
        # The log is small and has no statistics: row by row, by the table's key.
        await source.execute(
            "set local enable_hashjoin = off; set local enable_mergejoin = off;"
            " set local enable_seqscan = off; set local jit = off"
        )
        for node, query in queries.items():
            if node == self._source:
                with unhurried(source):
                    await source.execute(f"insert into {staging} {query}".encode())
            else:
                await carried(
                    Pump(source.pgconn, conns[node].pgconn),
                    f"copy ({query}) to stdout (format {self.form})".encode(),
                    f"copy {staging} from stdin (format {self.form})".encode(),
                )

    async def bring(self, run: Run, conns: Mapping[int, Connection], *, hold: bool) -> int:
        """Brings all nodes up to date with the log, in the transactions in which the sessions are; how many
        entries there were.

        Args:
            hold: keeps the partitions that change locked until the transactions end.
        """
        entries, truncated = await self._log(run, conns[self._source])
        if not entries:
            return 0
        await self.stage(run, conns, self.staged)

        async def at(conn: Connection) -> None:
            shadow = names.shadow(self.table.relation, run.cmd_id)
            with unhurried(conn):
                await conn.execute(
                    "select shardman.replay_rows(%s, %s, %s, %s, %s)",
                    (shadow, self.keys, run.cmd_id, truncated, hold),
                )

        await all_of(*(at(conn) for conn in conns.values()))
        log = sql.Identifier("shardman", f"log_c{run.cmd_id}")
        await conns[self._source].execute(sql.SQL("delete from {}").format(log))
        return entries

    async def _log(self, run: Run, source: Connection) -> tuple[int, bool]:
        """How much there is in the log, and whether the table was truncated: all rows that there are now were
        written after that, so their keys are in the log."""
        keys = self.keys.obj
        cur = await source.execute(
            sql.SQL("select count(*), coalesce(bool_or({} is null), false) from {}").format(
                sql.Identifier(keys[0]["name"]), sql.Identifier("shardman", f"log_c{run.cmd_id}")
            )
        )
        row = await cur.fetchone()
        return (int(row[0]), bool(row[1])) if row else (0, False)


async def replay_of(run: Run, table: OfTable) -> Replay:
    """For a table whose shadow is there."""
    conn = await run.node(table.node)
    shadow = names.shadow(table.relation, run.cmd_id)
    if (keys := await keys_of(conn, table)) is None:
        await check_unchanged(conn, table.relation, table.definition)
        raise UserError(
            f"{table.relation} has lost its key while it was being sharded",
            "Try again",
            code=Code.CHANGED_MEANWHILE,
        )

    async def query(rows: bool) -> dict[int, str]:
        found = await value(
            conn,
            "select shardman.staged_rows(%s, %s, %s, %s, %s, %s)",
            *(table.relation, shadow, Jsonb(table.definition), keys, run.cmd_id, rows),
        )
        return {
            n: f"{found} where l.shardman_part = any ('{{{','.join(map(str, parts))}}}'::bigint[])"
            for n in table.nodes()
            if (parts := table.parts(n))
        }

    _, form = await copy_shape(conn, table.relation)
    return Replay(table, keys, await query(True), await query(False), form.as_string(None))


async def sessions_of(run: Run, table: OfTable) -> dict[int, Connection]:
    """The command's sessions on all nodes that take part."""
    return {n: await run.node(n) for n in table.nodes()}


async def replay(run: Run, how: Replay) -> int:
    """Brings the shadow up to date with all that is committed; returns how much there was.

    The table is locked before the snapshot is taken: a truncation that commits in between would leave
    its rows visible in neither. The source commits last: what another node has committed is done once more
    if this fails, and does no harm.
    """
    conns = await sessions_of(run, how.table)
    source = conns[how.table.node]
    found = await find(source, how.table.relation)
    if found is None:
        raise UserError(
            f"{how.table.relation} is gone",
            "It was dropped or renamed meanwhile",
            code=Code.CHANGED_MEANWHILE,
        )
    async with AsyncExitStack() as stack:
        for conn in conns.values():
            await stack.enter_async_context(rolled_back(conn))
        await source.execute("begin isolation level repeatable read")
        await source.execute(sql.SQL("lock table only {} in access share mode").format(found))
        for conn in list(conns.values())[1:]:
            await conn.execute("begin")
        entries = await how.bring(run, conns, hold=False)
        for conn in reversed(conns.values()):
            await conn.execute("commit")
    return entries


async def catch_up(run: Run, how: Replay) -> None:
    """Replays until little is left.

    Raises:
        UserError: the application writes faster than this can follow.
    """

    async def again() -> int:
        return await replay(run, how)

    await follow(
        again,
        relation=how.table.relation,
        follower="its partitions",
        short_s=SHORT_S,
        tell=run.waits_for,
    )


@step("conversion_catch_up")
@dataclass(frozen=True)
class ConversionCatchUp(OfTable, PrepareStep):
    """Follows the writes that came during copy and index build."""

    leaves = "rows; they go with the partitions"

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        async with explained(conn, self.relation, self.definition):
            await catch_up(run, await replay_of(run, self))
