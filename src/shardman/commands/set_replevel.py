"""set_replevel(relation, n): brings every partition of a table to n replicas.

Replicas are made and dropped by commands of their own (`create_replica`, `rm_replica`). What the
nodes do not allow is said in the result; the command ends as ``done``.
"""

from __future__ import annotations

from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.commands.copying import group_claims
from shardman.commands.reachability import answering, who_answers
from shardman.model.cluster import Cluster
from shardman.model.plan import Plan, Step
from shardman.model.replicas import Change, changes


@verb
class SetReplevel(Command):
    """Gives each partition of ``relation`` ``replevel`` replicas, up or down."""

    name = "set_replevel"
    summary = "Bring every partition of a table to a number of replicas."

    relation: str = argument("A sharded table, written as in SQL.", kind=Kind.RELATION)
    replevel: int = argument("Replicas beside the primary.", at_least=0)

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        return frozenset(
            {
                Claim("membership", shared=True),
                Claim("channels"),
                *group_claims(cluster, self.relation),
            }
        )

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        """Which nodes are there to take replicas."""
        return who_answers(cluster)

    def changes(self, facts: Facts) -> list[Change]:
        """The replicas to make and to drop, in order.

        Raises:
            UserError: the table is not sharded.
        """
        there = answering(facts)
        places = [n.id for n in facts.cluster.places if n.id in there]
        return changes(facts.cluster, self.relation, self.replevel, places, there)

    def plan(self, facts: Facts) -> Plan:
        facts.cluster.table(self.relation)
        places = len(facts.cluster.places)
        short = (
            f"{self.replevel} replicas need {self.replevel + 1} workers, there are {places}."
            if self.replevel >= places
            else None
        )
        there = answering(facts)
        away = [n.id for n in facts.cluster.places if n.id not in there]
        return Plan(
            finish=(
                Step(
                    "set_level",
                    f"remember the level of {self.relation}",
                    {"relation": self.relation, "replevel": self.replevel},
                ),
                Step(
                    "run_replicas",
                    f"bring {self.relation} to {self.replevel} replicas",
                    {"relation": self.relation, "replevel": self.replevel},
                ),
            ),
            atomic=False,
            warnings=(
                *((short,) if short else ()),
                *(f"Node {n} cannot be reached: it gets no replicas." for n in away),
            ),
        )
