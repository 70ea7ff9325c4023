"""rm_node(node_id, force): a worker leaves the cluster. Its data and foreign tables stay on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from shardman.commands.base import Claim, Facts, Question
from shardman.commands.presence import who_answers
from shardman.commands.takeover import (
    counted,
    cut_steps,
    heirs,
    record_step,
    returned_step,
    said,
    takeover_steps,
    tell_step,
)
from shardman.errors import UserError
from shardman.model.cluster import Cluster, Node
from shardman.model.plan import Json, Plan, Step


@dataclass(frozen=True)
class RmNode:
    """Removes the worker ``node_id``; with ``force`` even while it holds partitions or is dead."""

    name: ClassVar[str] = "rm_node"

    node_id: int
    force: bool = False

    @classmethod
    def from_opts(cls, opts: Sequence[str | None]) -> Self:
        node_id, force = opts
        assert node_id is not None
        return cls(int(node_id), force == "true")

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        return frozenset({Claim("membership"), Claim("channels")})

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        """Whether the node is there; with force it matters who can take over."""
        node = cluster.nodes.get(self.node_id)
        if node is None or not node.is_active_worker:
            return ()
        if self.force:
            return who_answers(cluster)
        return (Question("answers", self.node_id, "select true"),)

    def plan(self, facts: Facts) -> Plan:
        self._node(facts.cluster)
        held = [
            c.part_name
            for c in sorted(
                facts.cluster.copies_on(self.node_id),
                key=lambda c: (c.relation, len(c.part_name), c.part_name),
            )
        ]
        if held and not self.force:
            raise UserError(
                f"node {self.node_id} holds {counted(held)}",
                "Move them away first, or use force, which makes them unreachable",
            )
        if not self.force and facts.answers.get("answers") is None:
            raise UserError(
                f"node {self.node_id} cannot be reached",
                "Start it and try again, or use force, which leaves what is ours on it",
            )
        node: dict[str, Json] = {"node": self.node_id}
        after = heirs(facts, self.node_id)
        return Plan(
            prepare=cut_steps(facts, self.node_id, after),
            switch=(
                *((record_step(self.node_id, after, leaves=True),) if held else ()),
                Step("remove_node", f"record node {self.node_id} as removed", node),
            ),
            finish=(
                *takeover_steps(self.node_id, after),
                *((returned_step(self.node_id, after, leaves=True),) if held else ()),
                Step(
                    "clean_node",
                    f"take our objects off node {self.node_id}",
                    node,
                ),
                Step("drop_meta_slot", "drop its slot on the lord", {"of": self.node_id}),
                tell_step(after),
            ),
            warnings=said(facts, self.node_id, after),
        )

    def _node(self, cluster: Cluster) -> Node:
        node = cluster.nodes.get(self.node_id)
        if node is None or node.status is None:
            known = ", ".join(str(n.id) for n in cluster.workers) or "none"
            raise UserError(f"there is no worker {self.node_id}", f"The workers are: {known}")
        if node.status == "removed":
            raise UserError(f"node {self.node_id} is removed already", "See shardman.nodes")
        if node.lord:
            raise UserError(
                f"node {self.node_id} is the lord's database too",
                "Make another node the lord with shardman promote-lord first",
            )
        return node
