"""add_foreign_key: a sharded table gets a foreign key, while it is read and written."""

from __future__ import annotations

from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Json, Plan, Step


@verb
class AddForeignKey(Command):
    """Makes it on the data tables of all primaries of ``relation``, not validated, then validates them."""

    name = "add_foreign_key"
    summary = "Give a sharded table a foreign key to a shared table, or to a colocated one."

    relation: str = argument("A sharded table, written as in SQL.", kind=Kind.RELATION)
    constraint_name: str = argument("What it is called.")
    definition: str = argument("As in SQL: foreign key (country) references countries (code).")

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        return claims_of(self.relation, cluster)

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        """What the text says."""
        return (
            Question(
                "item",
                0,
                "select shardman.reference_item(%s, %s, %s)",
                (self.relation, self.constraint_name, self.definition),
            ),
        )

    def plan(self, facts: Facts) -> Plan:
        facts.cluster.table(self.relation)
        item = facts.answers["item"]
        if "problem" in item:
            raise UserError(item["problem"], item["hint"], code=Code.BAD_ARGUMENT)
        places = places_of(self.relation, facts.cluster)
        what = f"the foreign key {self.constraint_name}"
        return Plan(
            prepare=(
                *(
                    Step(
                        "add_reference",
                        f"make {what} on node {node}, not validated",
                        {"node": node, "relation": self.relation, "parts": parts, "item": item},
                    )
                    for node, parts in places.items()
                ),
                Step(
                    "validate_reference",
                    f"look whether a row of {self.relation} breaks {what}",
                    {
                        "relation": self.relation,
                        "constraint": self.constraint_name,
                        "places": [[node, parts] for node, parts in places.items()],
                    },
                ),
            ),
            switch=(
                Step(
                    "record_reference",
                    f"record {what} of {self.relation}",
                    {
                        "relation": self.relation,
                        "constraint": self.constraint_name,
                        "item": item,
                    },
                ),
            ),
            finish=(Step("converge", "tell all nodes", {"relation": self.relation}),),
        )


def claims_of(relation: str, cluster: Cluster) -> frozenset[Claim]:
    """What a change of a table's foreign keys needs: what it refers to stays shared, and colocated."""
    others = {*cluster.shared, *cluster.group(relation)} - {relation}
    return frozenset(
        {
            Claim("membership", shared=True),
            Claim(f"table {relation}"),
            *(Claim(f"table {other}", shared=True) for other in others),
        }
    )


def places_of(relation: str, cluster: Cluster) -> dict[int, list[Json]]:
    """The partitions of a table, by the node of their primary."""
    found: dict[int, list[Json]] = {}
    for part, primary in sorted(cluster.primaries.items()):
        if primary.relation == relation:
            found.setdefault(primary.owner, []).append(part)
    return dict(sorted(found.items()))
