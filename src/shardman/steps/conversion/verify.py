"""Proves that table and shadow are the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shardman import names
from shardman.errors import Code, UserError
from shardman.pg.connection import Connection
from shardman.steps.base import OfTable, PrepareStep, Run, step
from shardman.steps.conversion.catch_up import catch_up
from shardman.steps.conversion.definition import check_unchanged, explained
from shardman.steps.conversion.frame import CHUNK_BLOCKS, MAX_COPIES, Rewritten, frame, in_frame
from shardman.steps.conversion.sessions import for_each, sessions


@dataclass
class Content:
    """Number of rows and a hash that does not depend on their order."""

    rows: int = 0
    hash: int = 0

    def add(self, row: tuple[int, Any]) -> None:
        self.rows += int(row[0])
        self.hash += int(row[1])


@step("conversion_verify")
@dataclass(frozen=True)
class ConversionVerify(OfTable, PrepareStep):
    """Compares table and shadow under one snapshot, leaving out the keys that are in the log: those
    are read from the table again before the switch."""

    leaves = "nothing: locks end with their sessions"

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        for _ in range(MAX_COPIES):
            try:
                async with explained(conn, self.relation, self.definition):
                    await catch_up(run, conn, self.relation)
                    table, shadow = await self._contents(run, conn)
            except Rewritten:
                continue
            await check_unchanged(conn, self.relation, self.definition)
            if table != shadow:
                raise UserError(
                    f"{self.relation} has {table.rows} rows and its partitions {shadow.rows},"
                    " or their contents differ",
                    "Nothing was changed; report this with the server's log",
                    code=Code.COPIES_DIFFER,
                )
            run.figures.rows = table.rows
            return
        raise UserError(
            f"{self.relation} is truncated or rewritten again and again",
            "Try again when that is over",
            code=Code.TOO_BUSY,
        )

    async def _contents(self, run: Run, conn: Connection) -> tuple[Content, Content]:
        table, shadow = Content(), Content()
        async with frame(conn, self.relation) as shared, sessions(run, self.node) as readers:
            cur = await conn.execute(
                "select data::oid from shardman.shadow_tables(%s)",
                (names.shadow(self.relation, run.cmd_id),),
            )
            datas = [int(r[0]) for r in await cur.fetchall()]

            async def read_table(session: Connection, first: int) -> None:
                table.add(
                    await in_frame(
                        session,
                        shared,
                        "select rows, hash from shardman.chunk_content(%s, %s, %s, %s, %s)",
                        *(self.relation, run.cmd_id, shared.filenode, first, CHUNK_BLOCKS),
                    )
                )

            async def read_shadow(session: Connection, data: int) -> None:
                shadow.add(
                    await in_frame(
                        session,
                        shared,
                        "select rows, hash from shardman.shadow_content(%s::oid::regclass, %s, %s)",
                        *(data, self.relation, run.cmd_id),
                    )
                )

            await for_each(readers, shared.chunks, read_table)
            await for_each(readers, datas, read_shadow)
        return table, shadow
