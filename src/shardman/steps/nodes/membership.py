"""Who is a member: what the switch of a command on nodes changes."""

from __future__ import annotations

import json
from dataclasses import dataclass

from shardman.steps.base import Run, Scope, SwitchStep, step


@step("insert_node")
@dataclass(frozen=True)
class InsertNode(SwitchStep):
    """The node is a member from now on."""

    node: int
    connstring: str
    zone: str | None = None

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        lord, server = await run.node(0), run.handed.server
        assert server is not None
        await lord.execute(
            "insert into shardman.nodes (id, connstring, worker_status, added_by, options, system_id, zone,"
            "  roads) values (%s, %s, 'active', %s, %s, %s, %s, true)",
            (
                self.node,
                self.connstring,
                run.cmd_id,
                json.dumps(server.options),
                server.system_id,
                self.zone,
            ),
        )
        if server.password:
            await lord.execute(
                "insert into shardman.node_secrets (node_id, password) values (%s, %s)",
                (self.node, server.password),
            )


@step("lord_joins")
@dataclass(frozen=True)
class LordJoins(SwitchStep):
    """The lord's database is a worker too from now on."""

    node: int
    zone: str | None = None

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        lord = await run.node(0)
        await lord.execute(
            "select shardman.lord_joins(%s, %s, %s)", (self.node, run.cmd_id, self.zone)
        )


@step("remove_node")
@dataclass(frozen=True)
class RemoveNode(SwitchStep):
    """The node is no member from now on."""

    node: int

    def scope(self) -> Scope:
        return Scope()

    async def do(self, run: Run) -> None:
        lord = await run.node(0)
        await lord.execute(
            "update shardman.nodes set worker_status = 'removed' where id = %s", (self.node,)
        )
        # Writers to shared tables do not wait for it any more.
        await lord.execute("delete from shardman.shared_copies where node = %s", (self.node,))
