"""set_zone(node_id, zone): what a worker may fail together with. Copies of a partition go to different
zones where they can; those that are there already are moved by `rebalance`."""

from __future__ import annotations

from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.model.cluster import Cluster
from shardman.model.plan import Plan, Step


@verb
class SetZone(Command):
    """Says that the worker ``node_id`` is in ``zone``; None: in one of its own."""

    name = "set_zone"
    summary = (
        "Say what a worker may fail together with: copies go to different zones where they can."
    )

    node_id: int = argument("A worker's node id.", kind=Kind.NODE)
    zone: str | None = argument(
        "What it may fail together with, say a rack; without one: with no other node."
    )

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        return frozenset({Claim("membership", shared=True), Claim(f"node {self.node_id}")})

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        return ()

    def plan(self, facts: Facts) -> Plan:
        node = facts.cluster.worker(self.node_id)
        return Plan(
            switch=(
                Step(
                    "set_zone",
                    f"record the zone of node {node.id}",
                    {"node": node.id, "zone": self.zone},
                ),
            ),
            finish=(Step("converge", "tell all nodes", {}),),
        )
