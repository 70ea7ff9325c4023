"""create_hash_partitions: shards a table that lies on one worker, while it is read and written.

What it guarantees, and how, is in docs/commands/create_hash_partitions.md; the instant that matters is
steps/conversion/cut_over.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.commands.copying import group_claims
from shardman.commands.create_shared_table import needed_steps, views_step
from shardman.commands.remains import sequences_taken
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster, Copy, number_of
from shardman.model.colocation import why_not
from shardman.model.placement import even
from shardman.model.plan import Json, Plan, Step

#: More would not be read.
NAMES_SHOWN = 3


@verb
class CreateHashPartitions(Command):
    """Shards ``relation`` of node ``node_id`` by the hash of ``expr`` into ``partitions_count`` parts."""

    name = "create_hash_partitions"
    summary = "Shard a table that lies on one worker, while it is read and written."

    node_id: int = argument("The worker that has the table.", kind=Kind.NODE)
    relation: str = argument("The plain table on that worker, with its rows.")
    expr: str = argument("What to shard by: a column, several (a, b), or an immutable expression.")
    partitions_count: int | None = argument(
        "Into how many; as many as the table has that it is colocated with.",
        default=None,
        at_least=1,
        at_most=4096,
        positional=True,
    )
    rebalance: bool = argument("Spread the partitions over all workers at once.", default=True)
    colocate_with: str | None = argument(
        "A sharded table: partitions of one number lie on the same nodes from then on.",
        default=None,
        kind=Kind.RELATION,
    )

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        claims = {Claim("membership", shared=True), Claim(f"table {self.relation}")}
        if self.colocate_with is None:
            return frozenset(claims)
        replicas = any(
            c.prv is not None and c.relation == self.colocate_with for c in cluster.copies
        )
        return (
            frozenset(claims)
            | group_claims(cluster, self.colocate_with)
            | ({Claim("channels")} if replicas else frozenset())
        )

    def _count(self, cluster: Cluster) -> int:
        """How many partitions there are to be.

        Raises:
            UserError: that is not known, or not as many as the table has that this one is colocated with.
        """
        if self.colocate_with is None:
            if self.partitions_count is None:
                raise UserError(
                    "create_hash_partitions needs partitions_count",
                    "Give one",
                    code=Code.BAD_ARGUMENT,
                )
            return self.partitions_count
        count = cluster.table(self.colocate_with).partitions_count
        if self.partitions_count not in (None, count):
            raise UserError(
                f"{self.colocate_with} has {count} partitions, not {self.partitions_count}",
                "Give as many, or leave partitions_count out",
                code=Code.BAD_ARGUMENT,
            )
        return count

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        beside = cluster.tables.get(self.colocate_with or "")
        count = beside.partitions_count if beside else self.partitions_count
        if not cluster.nodes.get(self.node_id) or count is None:
            return ()
        described = Question(
            "described",
            self.node_id,
            "select shardman.describe_table(%s, %s, %s)",
            (self.relation, self.expr, count),
        )
        return (
            described,
            *(
                Question(
                    f"taken {n}",
                    n,
                    "select shardman.names_taken(%s, %s)",
                    (self.relation, count),
                )
                for n in self._others(cluster)
            ),
            *(
                Question(f"used {n}", n, "select shardman.names_used(%s)", (self.relation,))
                for n in self._others(cluster)
            ),
        )

    def plan(self, facts: Facts) -> Plan:
        cluster = facts.cluster
        if self.relation in cluster.tables:
            raise self._sharded_already(cluster)
        cluster.worker(self.node_id)
        count = self._count(cluster)
        described = self._described(facts)
        self._check_names(facts, described)
        self._check_key(cluster, described)
        places = self._places(facts, count)
        away = [n for n in self._others(cluster) if facts.answers.get(f"taken {n}") is None]
        return Plan(
            prepare=(
                *needed_steps(
                    [n for n in self._others(cluster) if n not in away], self.relation, self.node_id
                ),
                *self._prepare(described, places, count),
            ),
            switch=(self._record(described, places),),
            finish=self._finish(facts, places, described),
            warnings=(
                *(f"{w.rstrip('.')}." for w in described["warnings"]),
                *(f"Node {n} cannot be reached: it gets the table when it is back." for n in away),
                *(() if described["has_key"] else (self._locked_warning(described),)),
            ),
        )

    def _sharded_already(self, cluster: Cluster) -> UserError:
        other = self.colocate_with
        if other is None or other in cluster.group(self.relation):
            remedy = "Spread it with rebalance if that is the aim"
        else:
            remedy = f"Lay it beside {other} with colocate('{self.relation}', '{other}')"
        return UserError(f"{self.relation} is sharded already", remedy, code=Code.ALREADY_SHARDED)

    def _places(self, facts: Facts, count: int) -> list[int]:
        """The node of each partition, from partition 0: where those of the table are that it is colocated with;
        otherwise spread as `rebalance` would spread them that lie on the table's node, over the nodes that can
        be reached. Empty: all stay there."""
        reached = [
            n.id
            for n in facts.cluster.places
            if n.id == self.node_id or facts.answers.get(f"taken {n.id}") is not None
        ]
        if self.colocate_with is not None:
            beside = self._beside(facts.cluster, self.colocate_with)
            return beside if {*beside} <= {*reached} else []
        if not self.rebalance:
            return []
        here = [Copy(str(k), self.node_id, None, None, self.relation) for k in range(count)]
        moved = {int(m.part_name): m.dest for m in even(here, reached).moves}
        return [moved.get(k, self.node_id) for k in range(count)] if moved else []

    def _beside(self, cluster: Cluster, other: str) -> list[int]:
        owners = {
            number_of(p): c.owner for p, c in cluster.primaries.items() if c.relation == other
        }
        return [owners[k] for k in sorted(owners)]

    def _prepare(
        self, described: Mapping[str, Any], places: list[int], count: int
    ) -> tuple[Step, ...]:
        name = self.relation
        here: dict[str, Json] = {"node": self.node_id, "relation": self.relation}
        check = Step(
            "check_definition",
            f"check that every node can have {name}",
            {**here, "definition": described["definition"]},
        )
        make: dict[str, Json] = {**check.args, "places": [*places]}
        switch: dict[str, Json] = {**make, "views": list(described.get("views") or ())}
        shadow = Step("conversion_shadow", f"make {count} partitions", make)
        if not described["has_key"]:
            return (check, shadow, Step("convert_at_once", f"copy {name} under a lock", switch))
        return (
            check,
            Step("conversion_log", f"log writes to {name}", here),
            shadow,
            Step("conversion_copy", f"copy {name} into its partitions", make),
            Step("conversion_index", "build indexes", make),
            Step("conversion_catch_up", f"catch up with writes to {name}", make),
            Step("conversion_verify", "compare partitions and table", make),
            Step("conversion_cut_over", f"switch {name} to its partitions", switch),
        )

    def _record(self, described: Mapping[str, Any], places: list[int]) -> Step:
        return Step(
            "record_table",
            f"record {self.relation} as sharded",
            {
                "node": self.node_id,
                "relation": self.relation,
                "definition": described["definition"],
                "create_sql": described["create_sql"],
                "places": [*places],
            },
        )

    def _finish(
        self, facts: Facts, places: list[int], described: Mapping[str, Any]
    ) -> tuple[Step, ...]:
        others: list[Json] = [*sorted({*places} - {self.node_id})]
        released = [
            Step("commit_prepared", f"release node {node}", {"node": node, "cmd": facts.cmd_id})
            for node in (*others, self.node_id)
        ]
        here: dict[str, Json] = {"node": self.node_id, "relation": self.relation}
        plain_routes = Step(
            "end_fresh_routes",
            f"use the plain routes on node {self.node_id}",
            {"node": self.node_id, "others": others},
        )
        items = described["definition"].get("shared_indexes")
        indexes = [
            Step(
                "lay_indexes",
                f"give {self.relation} its indexes as a whole on node {node}",
                {"node": node, "relation": self.relation, "items": items},
            )
            for node in sorted({*places, self.node_id})
            if items
        ]
        workers = {n.id for n in facts.cluster.workers}
        views = (
            views_step(self.relation, n, self.node_id, tell=n in workers)
            for n in self._others(facts.cluster)
        )
        join = Step(
            "join_group",
            f"lay {self.relation} beside {self.colocate_with}",
            {**here, "colocate_with": self.colocate_with},
        )
        return (
            *released,
            Step("drop_aside", f"drop the plain {self.relation}", here),
            *indexes,
            Step("converge", "tell all nodes", {"relation": self.relation}),
            *(views if described.get("views") else ()),
            *((plain_routes,) if others else ()),
            *((join,) if self.colocate_with is not None else ()),
        )

    def _check_key(self, cluster: Cluster, described: Mapping[str, Any]) -> None:
        if self.colocate_with is None:
            return
        if problem := why_not(cluster.table(self.colocate_with), described["definition"]):
            raise UserError(
                f"{self.relation} cannot be colocated with {self.colocate_with}: {problem}",
                "Shard it by columns of the same types, or without colocate_with",
                code=Code.TABLE_UNSUITABLE,
            )

    def _described(self, facts: Facts) -> Mapping[str, Any]:
        described = facts.answers.get("described")
        if described is None:
            raise UserError(
                f"node {self.node_id} cannot be reached",
                "Start it and try again",
                code=Code.NODE_UNREACHABLE,
            )
        obstacles = described["obstacles"]
        if obstacles:
            first, more = obstacles[0], len(obstacles) - 1
            others = f" (and {more} more in the way)" if more else ""
            raise UserError(f"{first['what']}{others}", first["hint"], code=Code.TABLE_UNSUITABLE)
        return dict(described)

    def _check_names(self, facts: Facts, described: Mapping[str, Any]) -> None:
        """Every node gets relations of these names, and sequences."""
        for node in self._others(facts.cluster):
            numbers = sequences_taken(facts, node, described["definition"])
            if taken := [*(facts.answers.get(f"taken {node}") or ()), *numbers]:
                shown = ", ".join(taken[:NAMES_SHOWN])
                more = f" and {len(taken) - NAMES_SHOWN} more" if len(taken) > NAMES_SHOWN else ""
                where = "the lord" if facts.cluster.nodes[node].lord else f"node {node}"
                raise UserError(
                    f"{where} has relations of its own of names that the table's need there:"
                    f" {shown}{more}",
                    "Rename or drop them there",
                    code=Code.NAME_TAKEN,
                )

    def _others(self, cluster: Cluster) -> list[int]:
        ids = {cluster.lord.id, *(n.id for n in cluster.workers)}
        return sorted(ids - {self.node_id})

    def _locked_warning(self, described: Mapping[str, Any]) -> str:
        return (
            f"{self.relation} has no key by which its rows could be told apart: it is locked while"
            f" its rows, about {described['rows']}, are copied."
        )
