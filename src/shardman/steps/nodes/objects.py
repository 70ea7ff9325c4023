"""The step that gives a new node what is in no table and was made on all nodes."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.types.json import Jsonb

from shardman.steps.base import FinishStep, Run, Scope, step
from shardman.steps.catalog import value


@step("give_objects")
@dataclass(frozen=True)
class GiveObjects(FinishStep):
    """Views, functions, types, schemas and extensions of a node are made on another, where they are not there.
    What cannot be made is told: it may need what only the first one has."""

    leaves = "some of them made"

    node: int
    source: int

    def scope(self) -> Scope:
        return Scope.of([self.node, self.source])

    async def do(self, run: Run) -> None:
        source, conn = await run.node(self.source), await run.node(self.node)
        objects = await value(
            source, "select coalesce(jsonb_agg(to_jsonb(o)), '[]') from shardman.spread_objects() o"
        )
        failed = await value(conn, "select shardman.make_objects(%s)", Jsonb(objects))
        for what in failed or ():
            run.say(f"On node {self.node}: {what}.")
