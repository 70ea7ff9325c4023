"""The order of succession."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shardman.errors import Code, UserError
from shardman.pg.connection import Connection
from shardman.steps.base import Run, Scope, SwitchStep, step


async def reorder(conn: Connection, part: str, order: Sequence[int]) -> None:
    """The copies of a partition in a new order of succession, the primary first.

    Raises:
        UserError: they are not on these nodes.
    """
    # None is a primary for an instant, for two may never be.
    cur = await conn.execute(
        "update shardman.partitions set prv = owner, nxt = null where part_name = %s", (part,)
    )
    there = cur.rowcount
    cur = await conn.execute(
        "update shardman.partitions p set prv = o.prv, nxt = o.nxt"
        " from (select node, lag(node) over w as prv, lead(node) over w as nxt"
        " from unnest(%s::int[]) with ordinality as u (node, n) window w as (order by n)) as o"
        " where p.part_name = %s and p.owner = o.node",
        (list(order), part),
    )
    if {there, cur.rowcount} != {len(order)}:
        raise UserError(
            f"the copies of {part} have changed",
            "Look at shardman.partitions and try again",
            code=Code.CHANGED_MEANWHILE,
        )


@step("set_order")
@dataclass(frozen=True)
class SetOrder(SwitchStep):
    """The copies of a partition in a new order of succession, the primary first."""

    part: str
    order: list[int]

    def scope(self) -> Scope:
        return Scope.of(parts=[self.part])

    async def do(self, run: Run) -> None:
        await reorder(await run.node(0), self.part, self.order)
