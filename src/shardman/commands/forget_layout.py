"""forget_layout: a table that is made again under the name of one that was dropped stays plain."""

from __future__ import annotations

from collections.abc import Sequence

from shardman.commands.arguments import argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.model.cluster import Cluster
from shardman.model.plan import Plan, Step


@verb
class ForgetLayout(Command):
    """Forgets how ``relation`` lay, which DROP TABLE has dropped."""

    name = "forget_layout"
    summary = "Forget how a table lay that was dropped by DROP TABLE."

    relation: str = argument("The name of a table that was dropped.")

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        return frozenset({Claim(f"layout of {self.relation}")})

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        return ()

    def plan(self, facts: Facts) -> Plan:
        return Plan(finish=forget_steps(facts.cluster.members, self.relation))


def forget_steps(members: Sequence[int], relation: str) -> tuple[Step, ...]:
    """What lets all nodes forget how a table lay."""
    return tuple(
        Step(
            "drop_layout",
            f"let node {n} forget how {relation} lay",
            {"node": n, "relation": relation},
        )
        for n in members
    )
