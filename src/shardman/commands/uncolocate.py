"""uncolocate(relation): a sharded table leaves its group. Its copies stay where they are, and go alone."""

from __future__ import annotations

from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, verb
from shardman.commands.copying import group_claims
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster
from shardman.model.colocation import references_inside
from shardman.model.plan import Plan, Step


@verb
class Uncolocate(Command):
    """Takes ``relation`` out of its group of colocated tables."""

    name = "uncolocate"
    summary = "Let a table go alone that is colocated with others."

    relation: str = argument("A colocated table, written as in SQL.", kind=Kind.RELATION)

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        return frozenset({Claim("membership", shared=True), *group_claims(cluster, self.relation)})

    def plan(self, facts: Facts) -> Plan:
        cluster = facts.cluster
        cluster.table(self.relation)
        if len(cluster.group(self.relation)) == 1:
            raise UserError(
                f"{self.relation} is colocated with no table",
                "Select relation, colocation from shardman.tables to see which are",
                code=Code.TABLE_UNSUITABLE,
            )
        if found := references_inside(cluster, self.relation):
            named = ", ".join(f"{key} of {of}" for of, key in found)
            several = len(found) > 1
            raise UserError(
                f"{self.relation} is held in its group by the foreign key{'s' * several} {named}",
                f"Drop {'them' if several else 'it'} with drop_foreign_key first",
                code=Code.TABLE_UNSUITABLE,
            )
        return Plan(
            switch=(
                Step(
                    "record_alone",
                    f"record that {self.relation} goes alone",
                    {"relation": self.relation},
                ),
            ),
            finish=(Step("converge", "tell all nodes", {"relation": self.relation}),),
        )
