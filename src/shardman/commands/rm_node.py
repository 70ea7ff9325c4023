"""rm_node(node_id, force): a worker leaves the cluster. Its data and foreign tables stay on it."""

from __future__ import annotations

from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.commands.reachability import proofs, who_answers
from shardman.commands.takeover import (
    counted,
    cut_steps,
    heirs,
    outcome,
    parting_steps,
    record_step,
    returned_step,
    said,
    takeover_steps,
    tell_step,
)
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster, Node
from shardman.model.plan import Json, Plan, Step


@verb
class RmNode(Command):
    """Removes the worker ``node_id``; with ``force`` even while it holds partitions or is dead."""

    name = "rm_node"
    summary = "Remove a worker from the cluster; its data stay on it."

    node_id: int = argument("A worker's node id.", kind=Kind.NODE)
    force: bool = argument(
        "Even if it holds partitions or is dead. Rows that no other node has become unreachable.",
        default=False,
    )

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        return frozenset({Claim("membership"), Claim("channels")})

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        """Whether the node is there; with force it matters who can take over."""
        node = cluster.nodes.get(self.node_id)
        if node is None or not node.is_active_worker:
            return ()
        if self.force:
            return (*who_answers(cluster), *proofs(cluster, self.node_id))
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
                f"Move them away first, or use force: {_by_force(facts.cluster, self.node_id, held)}",
                code=Code.NODE_HOLDS_PARTITIONS,
            )
        if not self.force and facts.answers.get("answers") is None:
            raise UserError(
                f"node {self.node_id} cannot be reached",
                "Start it and try again, or use force, which leaves what is ours on it",
                code=Code.NODE_UNREACHABLE,
            )
        self._need_other_copies(facts.cluster)
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
                *parting_steps(self.node_id, after),
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
            data=outcome(after),
        )

    def _need_other_copies(self, cluster: Cluster) -> None:
        alone = sorted(t.relation for t in cluster.shared.values() if t.nodes == (self.node_id,))
        if alone:
            raise UserError(
                f"node {self.node_id} has the only copy of the shared table {alone[0]}",
                f"Add another worker first, or unshare_table('{alone[0]}', {self.node_id})",
                code=Code.TABLE_UNSUITABLE,
            )

    def _node(self, cluster: Cluster) -> Node:
        node = cluster.nodes.get(self.node_id)
        if node is None or node.status is None:
            known = ", ".join(str(n.id) for n in cluster.workers) or "none"
            raise UserError(
                f"there is no worker {self.node_id}",
                f"The workers are: {known}",
                code=Code.NO_SUCH_NODE,
            )
        if node.status == "removed":
            raise UserError(
                f"node {self.node_id} is removed already",
                "See shardman.nodes",
                code=Code.NODE_NOT_ACTIVE,
            )
        if node.lord:
            raise UserError(
                f"node {self.node_id} is the lord's database too",
                "Make another node the lord with shardman promote-lord first",
                code=Code.NODE_IS_LORD,
            )
        return node


def _by_force(cluster: Cluster, node: int, held: list[str]) -> str:
    """What force costs: the rows of partitions of which no other node has a copy that follows."""
    alone = [
        part
        for part in held
        if not any(c.owner != node and c.stale_since is None for c in cluster.copies_of(part))
    ]
    if not alone:
        return "other nodes have copies of all of them, and no row becomes unreachable"
    return (
        f"then the rows of {counted(alone)}, of which no other node has a copy, become unreachable"
    )
