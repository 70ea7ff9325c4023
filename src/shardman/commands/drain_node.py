"""drain_node(node_id, drain): moves every copy of a partition off a worker, and keeps new ones off it.

The moves are commands of their own. One that fails does not stop the rest: the command ends as ``done``
and its result names what stays.
"""

from __future__ import annotations

from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.commands.reachability import answering, who_answers
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster
from shardman.model.draining import drain
from shardman.model.placement import Move
from shardman.model.plan import Json, Plan, Step


@verb
class DrainNode(Command):
    """Empties the worker ``node_id``; with ``drain`` false it may have partitions again."""

    name = "drain_node"
    summary = "Move all partitions and replicas off a worker, and place no new ones on it."

    node_id: int = argument("A worker's node id.", kind=Kind.NODE)
    drain: bool = argument("It may have partitions again.", default=True, off="--end")

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        held = cluster.copies_on(self.node_id) if self.drain else ()
        tables = {t for c in held for t in cluster.group(c.relation)}
        return frozenset(
            {
                Claim("membership", shared=True),
                Claim(f"node {self.node_id}"),
                *({Claim("channels")} if tables else ()),
                *(Claim(f"table {t}") for t in tables),
            }
        )

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        return who_answers(cluster)

    def moves(self, facts: Facts) -> list[Move]:
        """What leaves the node without copies, in order."""
        there = set(answering(facts))
        return drain(
            facts.cluster, self.node_id, [n.id for n in facts.cluster.places if n.id in there]
        )

    def plan(self, facts: Facts) -> Plan:
        node = facts.cluster.worker(self.node_id).id
        that: dict[str, Json] = {"node": node}
        if not self.drain:
            return Plan(
                switch=(Step("end_draining", f"record that node {node} may be used", that),),
                finish=(Step("converge", "tell all nodes", {}),),
            )
        if node not in answering(facts):
            raise UserError(
                f"node {node} cannot be reached",
                "Start it, or let its replicas take over with failover or rm_node and force",
                code=Code.NODE_UNREACHABLE,
            )
        return Plan(
            finish=(
                Step("begin_draining", f"record that nothing new goes to node {node}", that),
                Step("run_drain", f"move all that node {node} holds", that),
            ),
            atomic=False,
        )
