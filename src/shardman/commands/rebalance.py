"""rebalance(relation): spreads a table's partitions and their replicas evenly over the workers.

The moves and switches are commands of their own (`move_part`, `switch_primary`), several at once where
they share no node. One that fails does not stop the rest: the command ends as ``done`` and its result
names what did not move.
"""

from __future__ import annotations

from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.commands.copying import group_claims
from shardman.model.cluster import Cluster, Copy
from shardman.model.placement import Measure, Placement
from shardman.model.plan import Plan, Step
from shardman.model.spreading import spread_out

# Sizes of the data tables that the lord believes to be on the node; by name, because the node's own
# metadata may be a moment behind.
_SIZES = """
select coalesce(jsonb_object_agg(p, coalesce(pg_total_relation_size(
           shardman.find_relation(shardman.data_table(p))), 0)), '{}')
  from unnest(%s::text[]) as p
"""


def run_moves(relation: str, measure: Measure = "number") -> Step:
    """The step that plans a table's moves when its time comes and runs them as commands."""
    return Step("run_moves", f"spread {relation}", {"relation": relation, "by": measure})


@verb
class Rebalance(Command):
    """Evens out ``relation`` by number of partitions, or by bytes."""

    name = "rebalance"
    summary = "Spread the partitions of a table evenly, by the fewest moves."

    relation: str = argument("A sharded table, written as in SQL.", kind=Kind.RELATION)
    by: Measure = argument("What is to be even.", default="number")

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        replicas = any(c.prv is not None and c.relation == self.relation for c in cluster.copies)
        return frozenset(
            {
                Claim("membership", shared=True),
                *group_claims(cluster, self.relation),
                *({Claim("channels")} if replicas else ()),
            }
        )

    def _primaries(self, cluster: Cluster) -> list[Copy]:
        return [c for c in cluster.primaries.values() if c.relation == self.relation]

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        held: dict[int, list[str]] = {n.id: [] for n in cluster.workers}
        for copy in self._primaries(cluster):
            if copy.owner in held:
                held[copy.owner] += cluster.rank(copy.part_name)
        return tuple(Question(f"sizes {n}", n, _SIZES, (parts,)) for n, parts in held.items())

    def placement(self, facts: Facts) -> Placement:
        """The moves, and the spread before and after them.

        Raises:
            UserError: the table is not sharded.
        """
        cluster = facts.cluster
        cluster.table(self.relation)
        sizes: dict[str, int] = {}
        for node in self._reached(facts):
            sizes |= facts.answers[f"sizes {node}"]
        places = [n.id for n in cluster.places if n.id in self._reached(facts)]
        # Partitions that go together count as one, which is as big as all of them.
        whole = {
            c.part_name: sum(sizes.get(p, 0) for p in cluster.rank(c.part_name))
            for c in self._primaries(cluster)
        }
        return spread_out(cluster, self.relation, places, self.by, whole)

    def plan(self, facts: Facts) -> Plan:
        facts.cluster.table(self.relation)
        away = [n.id for n in facts.cluster.workers if n.id not in self._reached(facts)]
        return Plan(
            finish=(run_moves(self.relation, self.by),),
            atomic=False,
            warnings=tuple(
                f"Node {node} cannot be reached: nothing is moved to it or from it."
                for node in away
            ),
        )

    def _reached(self, facts: Facts) -> list[int]:
        """Active workers that answered. One that is down can neither give nor take."""
        return [
            n.id for n in facts.cluster.workers if facts.answers.get(f"sizes {n.id}") is not None
        ]
