"""Keys and indexes of the shadow."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.types.json import Jsonb

from shardman import names
from shardman.pg.bounded import unhurried
from shardman.pg.connection import Connection
from shardman.steps.base import OfTable, PrepareStep, Run, step
from shardman.steps.conversion.sessions import for_each, sessions
from shardman.steps.conversion.shadow import batched
from shardman.tasks import all_of

#: Sorting in memory makes an index build faster.
BUILD_MEMORY_KB = 128 * 1024


async def with_rows(run: Run, table: OfTable, node: int) -> tuple[list[int], list[int]]:
    """Of a node's partitions the numbers of those that have rows, the largest last, and of the others."""
    conn = await run.node(node)
    cur = await conn.execute(
        "select k, pg_relation_size(data) > 0 from shardman.local_parts(%s)"
        " order by pg_relation_size(data), k",
        (names.shadow(table.relation, run.cmd_id),),
    )
    found = await cur.fetchall()
    return [k for k, some in found if some], [k for k, some in found if not some]


async def in_portions(run: Run, table: OfTable, node: int) -> list[list[int]]:
    """A node's partitions as it is worked on them: one by one where they have rows, else many at once."""
    full, empty = await with_rows(run, table, node)
    return [*batched(empty), *([k] for k in full)]


@step("conversion_index")
@dataclass(frozen=True)
class ConversionIndex(OfTable, PrepareStep):
    """Keys, indexes and statistics of the data tables, built when their rows are in, on all nodes at once."""

    leaves = "indexes; they go with the partitions"

    async def do(self, run: Run) -> None:
        await all_of(*(self._on(run, n) for n in self.nodes()))

    async def _on(self, run: Run, node: int) -> None:
        definition = Jsonb(self.definition)

        async def build(session: Connection, parts: list[int]) -> None:
            with unhurried(session):
                await session.execute(
                    "select shardman.make_shadow_indexes(%s, %s, %s)",
                    (definition, parts, BUILD_MEMORY_KB),
                )

        async with sessions(run, node) as builders:
            await for_each(builders, await in_portions(run, self, node), build)
