"""The step that spreads a table that has become a sharded one."""

from __future__ import annotations

from dataclasses import dataclass

from shardman.steps.base import FinishStep, Run, Scope, step
from shardman.steps.moves import RunMoves


@step("spread_new_table")
@dataclass(frozen=True)
class SpreadNewTable(FinishStep):
    """Moves partitions off the table's node.

    It names that node, so that it waits for whatever is left to do there: a move cannot begin on a
    server on which the switch is prepared and not committed.
    """

    leaves = "partitions on the node of the table"

    node: int
    relation: str

    def scope(self) -> Scope:
        return Scope.of([self.node])

    async def do(self, run: Run) -> None:
        await RunMoves(self.relation).do(run)
