"""The switch of a split."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.types.json import Jsonb

from shardman.errors import Code, UserError
from shardman.model.plan import Json
from shardman.steps.base import Run, Scope, SwitchStep, step


@step("record_partitions")
@dataclass(frozen=True)
class RecordPartitions(SwitchStep):
    """A table has another number of partitions from now on. New ones lie where those lay that they come from,
    with their replicas in the same order."""

    relation: str
    former: int
    definition: dict[str, Json]
    create_sql: str

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        conn = await run.node(0)
        count = self.definition["partitions_count"]
        cur = await conn.execute(
            "update shardman.tables set partitions_count = %s, definition = %s, create_sql = %s"
            " where relation = %s and partitions_count = %s",
            (count, Jsonb(self.definition), self.create_sql, self.relation, self.former),
        )
        if cur.rowcount != 1:
            raise UserError(
                f"{self.relation} does not have {self.former} partitions any more",
                "Look at shardman.tables and try again",
                code=Code.CHANGED_MEANWHILE,
            )
        sizes = {"relation": self.relation, "former": self.former, "count": count}
        await conn.execute(
            "insert into shardman.partitions (part_name, owner, prv, nxt, relation, stale_since)"
            " select shardman.suffixed(p.relation, '_' || k), p.owner, p.prv, p.nxt, p.relation, p.stale_since"
            " from generate_series(%(former)s, %(count)s::int - 1) as k"
            " join shardman.partitions p"
            " on p.part_name = shardman.suffixed(p.relation, '_' || k %% %(former)s::int)"
            " where p.relation = %(relation)s",
            sizes,
        )
        await conn.execute(
            "delete from shardman.partitions where relation = %(relation)s"
            " and shardman.part_number(part_name) >= %(count)s",
            sizes,
        )
        # Their routes lead over servers that stay as long as older transactions: nodes ask since when.
        await conn.execute(
            "update shardman.partitions set relation = relation where relation = %(relation)s"
            " and shardman.part_number(part_name) < %(former)s",
            sizes,
        )
