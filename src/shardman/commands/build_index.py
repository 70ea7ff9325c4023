"""build_index: an index is built on all copies of a table's partitions, beside readers and writers.

`shardman.create_index_concurrently` submits it, for an index that it has made in the catalogs only.
"""

from __future__ import annotations

from typing import Any

from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Json, Plan, Step


@verb
class BuildIndex(Command):
    """Builds it on one copy after the other of each node, on all nodes at once; then the table has it."""

    name = "build_index"
    summary = "Build an index of a sharded table on all copies, while it is read and written."

    relation: str = argument("A sharded table, written as in SQL.", kind=Kind.RELATION)
    index_name: str = argument("An index made with ON ONLY, by create_index_concurrently.")

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        return frozenset({Claim("membership", shared=True), Claim(f"table {self.relation}")})

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        """What each node has of it."""
        return tuple(
            Question(
                f"index {node}",
                node,
                "select shardman.whole_index(%s, %s)",
                (self.relation, self.index_name),
            )
            for node in _places(self.relation, cluster)
        )

    def plan(self, facts: Facts) -> Plan:
        cluster = facts.cluster
        cluster.table(self.relation)
        places = _places(self.relation, cluster)
        item = self._item(facts, tuple(places))
        target: dict[str, Json] = {"relation": self.relation, "index": self.index_name}
        return Plan(
            prepare=tuple(
                Step(
                    "build_index",
                    f"build {self.index_name} on node {node}",
                    {
                        "node": node,
                        **target,
                        "parts": parts,
                        "others": [n for n in places if n != node],
                    },
                )
                for node, parts in places.items()
            ),
            switch=(
                Step(
                    "record_index",
                    f"record that {self.relation} has {self.index_name}",
                    {**target, "item": item},
                ),
            ),
            finish=(
                *(
                    Step(
                        "whole_index",
                        f"make {self.index_name} the table's on node {node}",
                        {"node": node, **target},
                    )
                    for node in places
                ),
                Step("converge", "tell all nodes", {"relation": self.relation}),
            ),
        )

    def _item(self, facts: Facts, nodes: tuple[int, ...]) -> dict[str, Json]:
        """What it is; raises UserError when it is not the same everywhere."""
        found: dict[int, Any] = {n: facts.answers.get(f"index {n}") for n in nodes}
        first: dict[str, Json] | None = found[nodes[0]]
        if first is not None and first.get("valid"):
            raise UserError(
                f"{self.relation} has the index {self.index_name} already",
                "There is nothing to build",
                code=Code.NAME_TAKEN,
            )
        for node, item in found.items():
            if first is None or item != first:
                raise UserError(
                    f"node {node} cannot be reached, or has no index {self.index_name} of {self.relation}"
                    " like that of the others",
                    "Drop it there, and make it with create_index_concurrently",
                    code=Code.OBJECT_MISSING,
                )
        assert first is not None
        return first


def _places(relation: str, cluster: Cluster) -> dict[int, list[Json]]:
    """All members of the cluster, each with the partitions of a table of which it has a copy."""
    return {
        node.id: [
            c.part_name
            for c in sorted(cluster.copies, key=lambda c: c.part_name)
            if c.relation == relation and c.owner == node.id
        ]
        for node in sorted(cluster.nodes.values(), key=lambda n: n.id)
        if node.lord or node.is_active_worker
    }
