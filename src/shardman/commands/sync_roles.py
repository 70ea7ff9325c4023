"""sync_roles(node, role): makes roles of one node's server the same on those of all other nodes."""

from __future__ import annotations

from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Plan, Step


@verb
class SyncRoles(Command):
    """Gives all nodes the roles of ``node`` that have rights on sharded tables, or ``role`` alone, with
    attributes, password, settings and memberships."""

    name = "sync_roles"
    summary = "Make the roles of one node the same on all nodes."

    node: int = argument("The node whose roles are taken.", default=0, kind=Kind.NODE)
    role: str | None = argument(
        "This role alone; without it those that have rights on sharded tables.", default=None
    )

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        return frozenset({Claim("membership", shared=True), Claim("roles")})

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        """Why the role is none for all nodes."""
        return (Question("obstacle", self.node, "select shardman.sync_obstacle(%s)", (self.role,)),)

    def plan(self, facts: Facts) -> Plan:
        cluster, source = facts.cluster, self.node
        if source not in cluster.members:
            raise UserError(
                f"there is no node {source}",
                "The nodes are in shardman.nodes",
                code=Code.NO_SUCH_NODE,
            )
        obstacle = facts.answers.get("obstacle")
        if obstacle is None:
            raise UserError(
                f"node {source} cannot be reached",
                "Start it, or take the roles of another node",
                code=Code.NODE_UNREACHABLE,
            )
        if obstacle:
            raise UserError(
                f"{obstacle} on node {source}",
                "Such a role is made on each server by hand",
                code=Code.NO_SUCH_ROLE,
            )
        others = [node for node in cluster.members if node != source]
        return Plan(
            finish=tuple(
                Step(
                    "give_roles",
                    f"give node {node} the roles of node {source}",
                    {"node": node, "source": source, "role": self.role},
                )
                for node in others
            ),
            atomic=False,
        )
