"""colocate(relation, colocate_with): a sharded table comes into the group of another one, while both are used.

Its copies are laid where that one's are by commands of their own (`move_part`, `switch_primary`,
`create_replica`, `rm_replica`); what has been laid stays there when the rest fails. Then one transaction
records that the partitions of one number go together.
"""

from __future__ import annotations

from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, verb
from shardman.commands.copying import group_claims
from shardman.commands.together import need_whole
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster
from shardman.model.colocation import Gathering, gathering, why_not
from shardman.model.plan import Json, Plan, Step


@verb
class Colocate(Command):
    """Lays the partitions of ``relation`` beside those of ``colocate_with``: from then on they go together."""

    name = "colocate"
    summary = "Let a sharded table lie with another one, partition by partition, from now on."

    relation: str = argument("A sharded table, written as in SQL.", kind=Kind.RELATION)
    colocate_with: str = argument(
        "The sharded table beside which it is to lie.", kind=Kind.RELATION
    )

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        tables = {*cluster.group(self.relation), *cluster.group(self.colocate_with)}
        replicas = any(c.prv is not None and c.relation in tables for c in cluster.copies)
        return frozenset(
            {
                Claim("membership", shared=True),
                *group_claims(cluster, self.relation),
                *group_claims(cluster, self.colocate_with),
                *({Claim("channels")} if replicas else ()),
            }
        )

    def gathering(self, cluster: Cluster) -> Gathering:
        """What is to be moved, and which replicas are made and dropped.

        Raises:
            UserError: the tables do not fit, or the cluster's state forbids it.
        """
        self._need_fit(cluster)
        for table in (self.relation, self.colocate_with):
            need_whole(cluster, table)
        found = gathering(cluster, self.relation, self.colocate_with)
        for move in found.moves:
            if move.kind == "move":
                cluster.place(move.dest)
        for change in found.changes:
            if change.add:
                cluster.place(change.node)
        return found

    def plan(self, facts: Facts) -> Plan:
        found = self.gathering(facts.cluster)
        both: dict[str, Json] = {
            "relation": self.relation,
            "colocate_with": self.colocate_with,
        }
        gather = Step("gather_copies", f"lay {self.relation} beside {self.colocate_with}", both)
        return Plan(
            prepare=() if found.done else (gather,),
            switch=(
                Step(
                    "record_colocation",
                    f"record that {self.relation} goes together with {self.colocate_with}",
                    both,
                ),
            ),
            finish=(Step("converge", "tell all nodes", {"relation": self.relation}),),
        )

    def _need_fit(self, cluster: Cluster) -> None:
        table, other = cluster.table(self.relation), cluster.table(self.colocate_with)
        whole = cluster.group(self.relation)
        if self.relation == self.colocate_with:
            raise UserError(
                f"{self.relation} is one table", "Name another one", code=Code.BAD_ARGUMENT
            )
        if self.colocate_with in whole:
            raise UserError(
                f"{self.relation} is colocated with {self.colocate_with} already",
                "",
                code=Code.TABLE_UNSUITABLE,
            )
        if len(whole) > 1:
            others = ", ".join(t for t in whole if t != self.relation)
            raise UserError(
                f"{self.relation} is colocated with {others}",
                f"Take it out of that group with uncolocate('{self.relation}') first",
                code=Code.TABLE_UNSUITABLE,
            )
        if table.partitions_count != other.partitions_count:
            raise UserError(
                f"{self.relation} has {table.partitions_count} partitions, {self.colocate_with}"
                f" {other.partitions_count}",
                f"Give it as many with set_partitions_count('{self.relation}',"
                f" {other.partitions_count}) first",
                code=Code.TABLE_UNSUITABLE,
            )
        if problem := why_not(other, table.definition):
            raise UserError(
                f"{self.relation} cannot be colocated with {self.colocate_with}: {problem}",
                "Only tables with keys of the same types and collations can",
                code=Code.TABLE_UNSUITABLE,
            )
