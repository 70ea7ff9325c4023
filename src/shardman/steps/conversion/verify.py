"""Proves that table and shadow are the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from shardman import names
from shardman.errors import Code, UserError
from shardman.pg.bounded import unhurried
from shardman.pg.connection import Connection
from shardman.steps.base import OfTable, PrepareStep, Run, step
from shardman.steps.conversion.catch_up import Replay, catch_up, replay_of, sessions_of
from shardman.steps.conversion.definition import check_unchanged, explained
from shardman.steps.conversion.frame import CHUNK_BLOCKS, MAX_COPIES, Rewritten, frame, look_through
from shardman.steps.conversion.indexes import in_portions
from shardman.steps.conversion.sessions import for_each, sessions
from shardman.tasks import all_of


class Contents:
    """Of each partition, by its number: how many rows it has, and a hash that does not depend on their
    order."""

    def __init__(self) -> None:
        self._of: dict[int, tuple[int, int]] = {}

    def add(self, rows: Iterable[tuple[int, int, Any]]) -> None:
        """Number of the partition, rows and hash."""
        for k, count, hash_ in rows:
            had = self._of.get(k, (0, 0))
            self._of[k] = (had[0] + int(count), had[1] + int(hash_))

    @property
    def rows(self) -> int:
        return sum(count for count, _ in self._of.values())

    def need(self, other: Contents, relation: str) -> None:
        """Compares the table's with the partitions'.

        Raises:
            UserError: they differ.
        """
        keys = self._of.keys() | other._of.keys()
        differing = [k for k in keys if self._of.get(k, (0, 0)) != other._of.get(k, (0, 0))]
        if differing:
            raise UserError(
                f"{relation} has {self.rows} rows and its partitions {other.rows},"
                f" or their contents differ (partition {min(differing)})",
                "Nothing was changed; report this with the server's log",
                code=Code.COPIES_DIFFER,
            )


@step("conversion_verify")
@dataclass(frozen=True)
class ConversionVerify(OfTable, PrepareStep):
    """Compares table and shadow under one snapshot, leaving out the keys that are in the log: those
    are read from the table again before the switch."""

    leaves = "nothing: locks end with their sessions"

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        how = await replay_of(run, self)
        for _ in range(MAX_COPIES):
            try:
                async with explained(conn, self.relation, self.definition):
                    await catch_up(run, how)
                    table, shadow = await self._contents(run, how)
            except Rewritten:
                await self._unstage(run)
                continue
            await self._unstage(run)
            await check_unchanged(conn, self.relation, self.definition)
            table.need(shadow, self.relation)
            run.figures.rows = table.rows
            return
        raise UserError(
            f"{self.relation} is truncated or rewritten again and again",
            "Try again when that is over",
            code=Code.TOO_BUSY,
        )

    async def _contents(self, run: Run, how: Replay) -> tuple[Contents, Contents]:
        table, shadow = Contents(), Contents()
        conns = await sessions_of(run, self)
        async with frame(conns[self.node], self.relation) as shared:
            # Nothing but this command writes to the shadow: it is as it was when the frame was taken.
            await self._stage(run, how, conns, shared.snapshot)

            async def read_table(session: Connection, first: int) -> None:
                async with look_through(session, shared, self.relation):
                    with unhurried(session):
                        cur = await session.execute(
                            "select k, rows, hash from shardman.chunk_content"
                            "(%s, %s, %s, %s, %s, %s, %s)",
                            (
                                *(self.relation, names.shadow(self.relation, run.cmd_id)),
                                *(Jsonb(self.definition), run.cmd_id, shared.filenode),
                                *(first, CHUNK_BLOCKS),
                            ),
                        )
                        table.add(await cur.fetchall())

            async def read_all() -> None:
                async with sessions(run, self.node) as readers:
                    await for_each(readers, shared.chunks, read_table)

            await all_of(
                read_all(), *(read_shadow(run, self, n, how.keys, shadow) for n in self.nodes())
            )
        return table, shadow

    async def _stage(
        self, run: Run, how: Replay, conns: Mapping[int, Connection], snapshot: str
    ) -> None:
        """Tells the nodes which keys are left out. Each is in a transaction of its own; the one that holds the
        frame reads, and writes for its own node."""
        async with run.extra_session(self.node) as writer:
            await writer.execute("begin isolation level repeatable read")
            await writer.execute(f"set transaction snapshot '{snapshot}'".encode())
            await how.stage(run, {**conns, self.node: writer}, how.staged_keys)
            await writer.execute("commit")

    async def _unstage(self, run: Run) -> None:
        for node in self.nodes():
            conn = await run.node(node)
            await conn.execute(f"truncate shardman.rows_c{run.cmd_id}".encode())


async def read_shadow(
    run: Run, target: OfTable, node: int, keys: Jsonb | None, found: Contents
) -> None:
    """Adds the contents of a node's data tables, but for what is staged there; keys is None: of all."""
    shadow = names.shadow(target.relation, run.cmd_id)

    async def read(session: Connection, parts: list[int]) -> None:
        with unhurried(session):
            cur = await session.execute(
                "select k, rows, hash from shardman.shadow_contents(%s, %s, %s, %s)",
                (shadow, keys, run.cmd_id, parts),
            )
            found.add(await cur.fetchall())

    async with sessions(run, node) as readers:
        await for_each(readers, await in_portions(run, target, node), read)
