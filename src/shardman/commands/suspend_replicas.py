"""suspend_replicas(src, dest): commits on a node do not wait for another one's replicas any more.

Submitted by the shardlord itself when the two cannot reach each other (`lord.links`), or by a person
before a server is stopped. The replicas keep their rows and follow again later. See
docs/commands/replicas.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from shardman.commands.base import Claim, Facts, Question
from shardman.commands.takeover import counted
from shardman.errors import UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Json, Plan, Step


@dataclass(frozen=True)
class SuspendReplicas:
    """Leaves behind the replicas on the worker ``dest`` of primaries on the worker ``src``."""

    name: ClassVar[str] = "suspend_replicas"

    src: int
    dest: int

    @classmethod
    def from_opts(cls, opts: Sequence[str | None]) -> Self:
        src, dest = opts
        assert src is not None and dest is not None
        return cls(int(src), int(dest))

    def parts(self, cluster: Cluster) -> list[str]:
        """The partitions whose replicas follow from src to dest."""
        return [
            part
            for part, primary in cluster.primaries.items()
            if primary.owner == self.src and self.dest in cluster.replicas_of(part)
        ]

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        parts = self.parts(cluster)
        return frozenset(
            {
                Claim("membership", shared=True),
                Claim("channels"),
                *(Claim(f"table {cluster.primary(p).relation}", shared=True) for p in parts),
                *(Claim(f"part {p}") for p in parts),
            }
        )

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        return ()

    def plan(self, facts: Facts) -> Plan:
        src, dest = self.src, self.dest
        for node in (src, dest):
            facts.cluster.worker(node)
        parts = self.parts(facts.cluster)
        if not parts:
            raise UserError(
                f"no replica on node {dest} follows a primary on node {src}",
                "See shardman.partitions",
            )
        return Plan(
            switch=(
                Step(
                    "leave_behind",
                    f"record that node {dest} does not follow node {src}",
                    {"parts": list[Json](parts), "node": dest},
                ),
            ),
            finish=(
                Step(
                    "standbys",
                    f"let commits on node {src} wait for its replicas only",
                    {"node": src, "also": []},
                ),
                Step(
                    "drop_publisher",
                    f"drop the channel to node {dest} on node {src}",
                    {"node": src, "to": dest},
                ),
                Step(
                    "retire_channel",
                    f"let node {dest} have no channel from node {src}",
                    {"node": dest, "of": src, "parts": []},
                ),
                Step("converge", "tell all nodes", {}),
            ),
            warnings=(
                f"Not followed until they are up to date again: replicas of {counted(parts)}.",
            ),
        )
