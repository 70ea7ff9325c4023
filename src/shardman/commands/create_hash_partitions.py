"""create_hash_partitions: shards a table that lies on one worker, while it is read and written.

What it guarantees, and how, is in docs/commands/create_hash_partitions.md; the instant that matters is
steps/conversion_fence.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from shardman.commands.base import Claim, Facts, Question
from shardman.errors import UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Json, Plan, Step

#: More would not be read.
NAMES_SHOWN = 3


@dataclass(frozen=True)
class CreateHashPartitions:
    """Shards ``relation`` of node ``node`` by the hash of ``expr`` into ``partitions_count`` parts."""

    name: ClassVar[str] = "create_hash_partitions"

    node: int
    relation: str
    expr: str
    partitions_count: int
    rebalance: bool = True

    @classmethod
    def from_opts(cls, opts: Sequence[str | None]) -> Self:
        node, relation, expr, count, rebalance = opts
        assert node is not None and relation is not None
        assert expr is not None and count is not None
        return cls(int(node), relation, expr, int(count), rebalance in (None, "true", "t"))

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        return frozenset({Claim("membership", shared=True), Claim(f"table {self.relation}")})

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        if not cluster.nodes.get(self.node):
            return ()
        described = Question(
            "described",
            self.node,
            "select shardman.describe_table(%s, %s, %s)",
            (self.relation, self.expr, self.partitions_count),
        )
        return (
            described,
            *(
                Question(
                    f"taken {n}",
                    n,
                    "select shardman.names_taken(%s, %s)",
                    (self.relation, self.partitions_count),
                )
                for n in self._others(cluster)
            ),
        )

    def plan(self, facts: Facts) -> Plan:
        cluster = facts.cluster
        if self.relation in cluster.tables:
            raise UserError(
                f"{self.relation} is sharded already", "Spread it with rebalance if that is the aim"
            )
        cluster.worker(self.node)
        described = self._described(facts)
        self._check_names(facts)
        away = [n for n in self._others(cluster) if facts.answers.get(f"taken {n}") is None]
        return Plan(
            prepare=self._prepare(described),
            switch=(self._record(described),),
            finish=self._finish(facts),
            warnings=(
                *(f"{w.rstrip('.')}." for w in described["warnings"]),
                *(f"Node {n} cannot be reached: it gets the table when it is back." for n in away),
                *(() if described["has_key"] else (self._locked_warning(described),)),
            ),
        )

    def _prepare(self, described: Mapping[str, Any]) -> tuple[Step, ...]:
        name = self.relation
        here: dict[str, Json] = {"node": self.node, "relation": self.relation}
        make: dict[str, Json] = {**here, "definition": described["definition"]}
        check = Step("check_definition", f"check that every node can have {name}", make)
        shadow = Step("conversion_shadow", f"make {self.partitions_count} partitions", make)
        if not described["has_key"]:
            return (check, shadow, Step("convert_at_once", f"copy {name} under a lock", make))
        return (
            check,
            Step("conversion_log", f"log writes to {name}", here),
            shadow,
            Step("conversion_copy", f"copy {name} into its partitions", make),
            Step("conversion_index", "build indexes", make),
            Step("conversion_catch_up", f"catch up with writes to {name}", make),
            Step("conversion_verify", "compare partitions and table", make),
            Step("conversion_fence", f"switch {name} to its partitions", make),
        )

    def _record(self, described: Mapping[str, Any]) -> Step:
        return Step(
            "record_table",
            f"record {self.relation} as sharded",
            {
                "node": self.node,
                "relation": self.relation,
                "definition": described["definition"],
                "create_sql": described["create_sql"],
            },
        )

    def _finish(self, facts: Facts) -> tuple[Step, ...]:
        return (
            Step(
                "commit_prepared",
                f"release node {self.node}",
                {"node": self.node, "cmd": facts.cmd_id},
            ),
            Step(
                "drop_aside",
                f"drop the plain {self.relation}",
                {"node": self.node, "relation": self.relation},
            ),
            Step("converge", "tell all nodes", {"relation": self.relation}),
            *((self._spread(),) if self.rebalance else ()),
        )

    def _spread(self) -> Step:
        return Step(
            "spread_new_table",
            f"spread {self.relation}",
            {"node": self.node, "relation": self.relation},
        )

    def _described(self, facts: Facts) -> Mapping[str, Any]:
        described = facts.answers.get("described")
        if described is None:
            raise UserError(f"node {self.node} cannot be reached", "Start it and try again")
        obstacles = described["obstacles"]
        if obstacles:
            first, more = obstacles[0], len(obstacles) - 1
            others = f" (and {more} more in the way)" if more else ""
            raise UserError(f"{first['what']}{others}", first["hint"])
        return dict(described)

    def _check_names(self, facts: Facts) -> None:
        """Every node gets relations of these names."""
        for node in self._others(facts.cluster):
            if taken := facts.answers.get(f"taken {node}"):
                shown = ", ".join(taken[:NAMES_SHOWN])
                more = f" and {len(taken) - NAMES_SHOWN} more" if len(taken) > NAMES_SHOWN else ""
                where = "the lord" if facts.cluster.nodes[node].lord else f"node {node}"
                raise UserError(
                    f"{where} has relations of its own of names that the table's need there:"
                    f" {shown}{more}",
                    "Rename or drop them there",
                )

    def _others(self, cluster: Cluster) -> list[int]:
        ids = {cluster.lord.id, *(n.id for n in cluster.workers)}
        return sorted(ids - {self.node})

    def _locked_warning(self, described: Mapping[str, Any]) -> str:
        return (
            f"{self.relation} has no key by which its rows could be told apart: it is locked while"
            f" its rows, about {described['rows']}, are copied."
        )
