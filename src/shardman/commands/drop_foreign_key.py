"""drop_foreign_key: a sharded table loses a foreign key, on all nodes."""

from __future__ import annotations

from typing import Any

from shardman.commands.add_foreign_key import claims_of, places_of
from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, verb
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Plan, Step


@verb
class DropForeignKey(Command):
    """Takes it out of the metadata, then from the data tables of all primaries of ``relation``."""

    name = "drop_foreign_key"
    summary = "Take a foreign key from a sharded table."

    relation: str = argument("A sharded table, written as in SQL.", kind=Kind.RELATION)
    constraint_name: str = argument("What it is called.")

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        return claims_of(self.relation, cluster)

    def plan(self, facts: Facts) -> Plan:
        table = facts.cluster.table(self.relation)
        keys: Any = table.definition.get("foreign_keys") or ()
        names = [key["name"] for key in keys]
        if self.constraint_name not in names:
            raise UserError(
                f"{self.relation} has no foreign key {self.constraint_name}",
                f"It has {', '.join(sorted(names)) or 'none'}",
                code=Code.OBJECT_MISSING,
            )
        what = f"the foreign key {self.constraint_name}"
        return Plan(
            switch=(
                Step(
                    "record_reference",
                    f"record that {self.relation} has not {what}",
                    {"relation": self.relation, "constraint": self.constraint_name, "item": None},
                ),
            ),
            finish=(
                *(
                    Step(
                        "drop_reference",
                        f"drop {what} on node {node}",
                        {"node": node, "parts": parts, "constraint": self.constraint_name},
                    )
                    for node, parts in places_of(self.relation, facts.cluster).items()
                ),
                Step("converge", "tell all nodes", {"relation": self.relation}),
            ),
        )
