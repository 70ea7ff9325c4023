"""Steps inside the switch: the only places where the truth about the cluster changes."""

from __future__ import annotations

from dataclasses import dataclass

from shardman.errors import UserError
from shardman.steps.base import Run, step


@step("set_owner")
@dataclass(frozen=True)
class SetOwner:
    """A copy lives on another node from now on."""

    part: str
    src: int
    dest: int

    async def do(self, run: Run) -> None:
        conn = await run.node(0)
        cur = await conn.execute(
            "update shardman.partitions set owner = %s where part_name = %s and owner = %s",
            (self.dest, self.part, self.src),
        )
        if cur.rowcount != 1:
            raise UserError(
                f"{self.part} is no longer on node {self.src}",
                "Look at shardman.partitions and try again",
            )

    async def undo(self, run: Run) -> None:
        """The switch is the point of no return."""
