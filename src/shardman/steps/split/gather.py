"""Partitions that become one have their copies on the same nodes first."""

from __future__ import annotations

from dataclasses import dataclass

from shardman.commands.base import Command
from shardman.commands.move_part import MovePart
from shardman.commands.switch_primary import SwitchPrimary
from shardman.errors import Code, UserError
from shardman.model.plan import Json
from shardman.steps.base import PrepareStep, Run, Scope, step


@step("gather_parts")
@dataclass(frozen=True)
class GatherParts(PrepareStep):
    """Moves copies, each by a command of its own. What has been moved stays there when the rest fails.

    Args:
        moves: each with `part`, `dest`, and `src`, which is null for a change of primaries.
    """

    leaves = "partitions that were moved already"

    moves: list[dict[str, Json]]

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        for n, move in enumerate(self.moves):
            await run.waits_for(f"moves: {n} of {len(self.moves)} done")
            status, error = await run.child(_command(move))
            if status != "success":
                raise UserError(
                    f"{move['part']} could not be brought to node {move['dest']}: {error or status}",
                    "See that command, then submit this one again",
                    code=Code.TABLE_UNSUITABLE,
                )
        await run.waits_for(None)
        run.figures.moved = len(self.moves)


def _command(move: dict[str, Json]) -> Command:
    part, dest, src = move["part"], move["dest"], move["src"]
    assert isinstance(part, str) and isinstance(dest, int)
    if src is None:
        return SwitchPrimary(part, dest)
    assert isinstance(src, int)
    return MovePart(part, dest, src)
