"""drain_node(node_id, drain): moves every copy of a partition off a worker, and keeps new ones off it.

The moves are commands of their own. One that fails does not stop the rest: the command ends as ``done``
and its result names what stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from shardman.commands.base import Claim, Facts, Question
from shardman.commands.presence import answering, who_answers
from shardman.errors import UserError
from shardman.model.cluster import Cluster
from shardman.model.draining import drain
from shardman.model.placement import Move
from shardman.model.plan import Json, Plan, Step


@dataclass(frozen=True)
class DrainNode:
    """Empties the worker ``node_id``; with ``drain`` false it may have partitions again."""

    name: ClassVar[str] = "drain_node"

    node_id: int
    drain: bool = True

    @classmethod
    def from_opts(cls, opts: Sequence[str | None]) -> Self:
        node_id, wanted = opts
        assert node_id is not None
        return cls(int(node_id), wanted == "true")

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        tables = {c.relation for c in cluster.copies_on(self.node_id)} if self.drain else set()
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
        mark: dict[str, Json] = {"node": node, "draining": self.drain}
        if not self.drain:
            return Plan(
                switch=(Step("set_draining", f"record that node {node} may be used", mark),),
                finish=(Step("converge", "tell all nodes", {}),),
            )
        if node not in answering(facts):
            raise UserError(
                f"node {node} cannot be reached",
                "Start it, or let its replicas take over with failover or rm_node and force",
            )
        return Plan(
            finish=(
                Step("set_draining", f"record that nothing new goes to node {node}", mark),
                Step("run_drain", f"move all that node {node} holds", {"node": node}),
            ),
            atomic=False,
        )
