"""The switch of a conversion."""

from __future__ import annotations

from dataclasses import dataclass, field

from psycopg.types.json import Jsonb

from shardman.model.plan import Json
from shardman.steps.base import Run, Scope, SwitchStep, step


@step("record_table")
@dataclass(frozen=True)
class RecordTable(SwitchStep):
    """The table is sharded from now on.

    Args:
        places: as of `OfTable`.
    """

    node: int
    relation: str
    definition: dict[str, Json]
    create_sql: str
    places: list[int] = field(default_factory=list)

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        conn = await run.node(0)
        expr, count = self.definition["expr"], self.definition["partitions_count"]
        await conn.execute(
            "insert into shardman.tables"
            " (relation, expr, partitions_count, create_sql, initial_node, definition)"
            " values (%s, %s, %s, %s, %s, shardman.named_as_now(%s))",
            (self.relation, expr, count, self.create_sql, self.node, Jsonb(self.definition)),
        )
        await conn.execute(
            "insert into shardman.partitions (part_name, owner, relation)"
            " select shardman.suffixed(%(relation)s, '_' || k),"
            " coalesce((%(places)s::int[])[k + 1], %(node)s), %(relation)s"
            " from generate_series(0, %(count)s - 1) as k",
            {"relation": self.relation, "node": self.node, "count": count, "places": self.places},
        )
