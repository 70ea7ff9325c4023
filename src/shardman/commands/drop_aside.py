"""drop_aside(node_id, table_name, also_found): drops what failovers have set aside on a node, when its rows are
elsewhere.

`shardman clean` does the same for all nodes, and asks before; that needs the role of the nodes, this needs an
operator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Plan, Step
from shardman.model.set_aside import why_kept


@verb
class DropAside(Command):
    """Drops what was set aside on ``node_id``, of it ``table_name``; ``also_found``: what add_node found."""

    name = "drop_aside"
    summary = "Drop what failovers have set aside on a node, where its rows are elsewhere."

    node_id: int = argument("A node's id.", kind=Kind.NODE)
    table_name: str | None = argument(
        "One table, written as in SQL; all of the node otherwise.",
        default=None,
    )
    also_found: bool = argument(
        "Also what add_node found: it may be another cluster's.", default=False
    )

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        """A copy may be on its way that makes one the last."""
        return frozenset({Claim("membership", shared=True), Claim(f"node {self.node_id}")})

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        """What is there, and which primaries each node serves."""
        return (
            Question("asides", self.node_id, "select shardman.asides_here()"),
            *(Question(f"served {n}", n, "select shardman.served_here()") for n in cluster.members),
        )

    def plan(self, facts: Facts) -> Plan:
        node = facts.cluster.worker(self.node_id).id
        asides = facts.answers.get("asides")
        if asides is None:
            raise UserError(
                f"node {node} cannot be reached",
                "Start it, and try again",
                code=Code.NODE_UNREACHABLE,
            )
        chosen = [a for a in asides if self.table_name in (None, a["name"])]
        if not chosen and self.table_name is not None:
            raise UserError(
                f"no table {self.table_name} is set aside on node {node}",
                f"See shardman.set_aside there: {', '.join(a['name'] for a in asides) or 'nothing is'}",
                code=Code.OBJECT_MISSING,
            )
        kept = dict(self._kept(facts, chosen))
        doomed = [a["name"] for a in chosen if a["name"] not in kept]
        if kept and not doomed:
            name, why = next(iter(kept.items()))
            raise UserError(
                f"{name} is kept: {why}",
                "Look at it before you drop it by hand",
                code=Code.TABLE_UNSUITABLE,
            )
        return Plan(
            finish=(
                Step(
                    "drop_asides",
                    f"drop {', '.join(doomed)} on node {node}",
                    {"node": node, "names": doomed},
                ),
            )
            if doomed
            else (),
            warnings=tuple(f"{name} is kept: {why}." for name, why in kept.items()),
        )

    def _kept(self, facts: Facts, asides: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
        for each in asides:
            part = each["part_name"]
            primary = facts.cluster.primaries.get(part)
            owner = None if primary is None else primary.owner
            why = why_kept(
                part,
                each["cmd_type"],
                owner,
                served=part in (facts.answers.get(f"served {owner}") or ()),
                found=self.also_found,
            )
            if why or each["in_use"]:
                yield each["name"], why or "it is a partition, or published"
