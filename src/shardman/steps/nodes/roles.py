"""The step that gives a node's server the roles of another one."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.types.json import Jsonb

from shardman.steps.base import FinishStep, Run, Scope, step
from shardman.steps.catalog import value


@step("give_roles")
@dataclass(frozen=True)
class GiveRoles(FinishStep):
    """Makes roles of a node what they are on another one. Stored passwords go from server to server: they are
    never written down, and the shardlord's sessions do not log statements."""

    leaves = "some of the roles as they are to be"

    node: int
    source: int
    role: str | None

    def scope(self) -> Scope:
        return Scope.of([self.node, self.source])

    async def do(self, run: Run) -> None:
        source, conn = await run.node(self.source), await run.node(self.node)
        roles = await value(source, "select shardman.roles_here(%s)", self.role)
        failed = await value(conn, "select shardman.take_roles(%s)", Jsonb(roles))
        for what in failed or ():
            run.say(f"On node {self.node}: {what}.")
