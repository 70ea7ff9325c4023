"""Keys and indexes of the shadow."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql
from psycopg.types.json import Jsonb

from shardman.pg.bounded import unhurried
from shardman.pg.connection import Connection
from shardman.steps.base import OfTable, PrepareStep, Run, step
from shardman.steps.catalog import data_table
from shardman.steps.catalog import relation as find
from shardman.steps.conversion.definition import parts_of
from shardman.steps.conversion.sessions import for_each, sessions


@step("conversion_index")
@dataclass(frozen=True)
class ConversionIndex(OfTable, PrepareStep):
    """Keys, indexes and statistics of the data tables, built when their rows are in."""

    leaves = "indexes; they go with the partitions"

    async def do(self, run: Run) -> None:
        conn = await run.node(self.node)
        definition = Jsonb(self.definition)

        async def build(session: Connection, part: str) -> None:
            with unhurried(session):
                await session.execute(
                    "select shardman.make_data_indexes(%s, %s)", (part, definition)
                )
                data = await find(session, await data_table(session, part))
                if data is not None:
                    await session.execute(sql.SQL("analyze {}").format(data))

        async with sessions(run, self.node) as builders:
            await for_each(builders, await parts_of(conn, self.definition), build)
