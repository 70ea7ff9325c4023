"""Which copies follow their primaries."""

from __future__ import annotations

from dataclasses import dataclass

from shardman.pg.connection import Connection
from shardman.steps.base import Run, Scope, SwitchStep, step


async def set_stale(conn: Connection, part: str, owner: int, *, stale: bool) -> None:
    """Remembers that a copy does not follow its primary any more, or that it does again."""
    await conn.execute(
        "update shardman.partitions set stale_since = case when %s then now() end"
        " where part_name = %s and owner = %s",
        (stale, part, owner),
    )


@step("leave_behind")
@dataclass(frozen=True)
class LeaveBehind(SwitchStep):
    """Replicas on a node do not follow their primaries any more."""

    waits = "commits on the primaries' node"
    waits_until = "settle_standby_names"

    parts: list[str]
    node: int

    def scope(self) -> Scope:
        return Scope.of(parts=self.parts)

    async def do(self, run: Run) -> None:
        conn = await run.node(0)
        for part in self.parts:
            await set_stale(conn, part, self.node, stale=True)


@step("set_fresh")
@dataclass(frozen=True)
class SetFresh(SwitchStep):
    """A copy that was stale follows its primary again."""

    part: str
    node: int

    def scope(self) -> Scope:
        return Scope.of(parts=[self.part])

    async def do(self, run: Run) -> None:
        await set_stale(await run.node(0), self.part, self.node, stale=False)
