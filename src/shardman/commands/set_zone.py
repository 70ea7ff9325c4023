"""set_zone(node_id, zone): what a worker may fail together with. Copies of a partition go to different
zones where they can; those that are there already are moved by `rebalance`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from shardman.commands.base import Claim, Facts, Question
from shardman.model.cluster import Cluster
from shardman.model.plan import Plan, Step


@dataclass(frozen=True)
class SetZone:
    """Says that the worker ``node_id`` is in ``zone``; None: in one of its own."""

    name: ClassVar[str] = "set_zone"

    node_id: int
    zone: str | None

    @classmethod
    def from_opts(cls, opts: Sequence[str | None]) -> Self:
        node_id, zone = opts
        assert node_id is not None
        return cls(int(node_id), zone)

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        return frozenset({Claim("membership", shared=True), Claim(f"node {self.node_id}")})

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        return ()

    def plan(self, facts: Facts) -> Plan:
        node = facts.cluster.worker(self.node_id)
        return Plan(
            switch=(
                Step(
                    "set_zone",
                    f"record the zone of node {node.id}",
                    {"node": node.id, "zone": self.zone},
                ),
            ),
            finish=(Step("converge", "tell all nodes", {}),),
        )
