"""set_replevel(relation, n): brings every partition of a table to n replicas.

Replicas are made and dropped by commands of their own (`create_replica`, `rm_replica`). What the
nodes do not allow is said in the result; the command ends as ``done``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from shardman.commands.base import Claim, Facts, Question
from shardman.model.cluster import Cluster
from shardman.model.plan import Plan, Step
from shardman.model.replicas import Change, changes


@dataclass(frozen=True)
class SetReplevel:
    """Gives each partition of ``relation`` ``replevel`` replicas, up or down."""

    name: ClassVar[str] = "set_replevel"

    relation: str
    replevel: int

    @classmethod
    def from_opts(cls, opts: Sequence[str | None]) -> Self:
        relation, replevel = opts
        assert relation is not None and replevel is not None
        return cls(relation, int(replevel))

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        return frozenset(
            {
                Claim("membership", shared=True),
                Claim("channels"),
                Claim(f"table {self.relation}"),
            }
        )

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        """Which nodes are there to take replicas."""
        return tuple(Question(f"answers {n.id}", n.id, "select true") for n in cluster.workers)

    def changes(self, facts: Facts) -> list[Change]:
        """The replicas to make and to drop, in order.

        Raises:
            UserError: the table is not sharded.
        """
        return changes(facts.cluster, self.relation, self.replevel, self._reached(facts))

    def plan(self, facts: Facts) -> Plan:
        facts.cluster.table(self.relation)
        workers = len(facts.cluster.workers)
        short = (
            f"{self.replevel} replicas need {self.replevel + 1} workers, there are {workers}."
            if self.replevel >= workers
            else None
        )
        away = [n.id for n in facts.cluster.workers if n.id not in self._reached(facts)]
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

    def _reached(self, facts: Facts) -> list[int]:
        return [n.id for n in facts.cluster.workers if facts.answers.get(f"answers {n.id}")]
