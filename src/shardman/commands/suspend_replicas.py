"""suspend_replicas(src, dest): commits on a node do not wait for another one's replicas any more.

Submitted by the shardlord itself when the two cannot reach each other (`lord.watchers.channels`), or by a
person before a server is stopped. The replicas keep their rows and follow again later. With a table only its
replicas are left behind, and the channel goes on with those of others. See docs/commands/replicas.md.
"""

from __future__ import annotations

from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.commands.takeover import counted
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Json, Plan, Step


@verb
class SuspendReplicas(Command):
    """Leaves behind the replicas on the worker ``dest`` of primaries on the worker ``src``."""

    name = "suspend_replicas"
    summary = "Let commits on one worker wait no more for the replicas on another one."
    urgent = True

    src: int = argument("The worker with the primaries.", kind=Kind.NODE)
    dest: int = argument("The worker with the replicas.", kind=Kind.NODE)
    relation: str | None = argument(
        "Only the replicas of this table.", default=None, kind=Kind.RELATION
    )

    def parts(self, cluster: Cluster) -> list[str]:
        """The partitions whose replicas follow from src to dest, of the table if one is given."""
        return [p for p in self._followed(cluster) if self._meant(cluster, p)]

    def _followed(self, cluster: Cluster) -> list[str]:
        return [
            part
            for part, primary in cluster.primaries.items()
            if primary.owner == self.src and self.dest in cluster.replicas_of(part)
        ]

    def _meant(self, cluster: Cluster, part: str) -> bool:
        return self.relation is None or cluster.primary(part).relation in cluster.group(
            self.relation
        )

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
            of = f" of {self.relation}" if self.relation else ""
            raise UserError(
                f"no replica{of} on node {dest} follows a primary on node {src}",
                "See shardman.partitions",
                code=Code.NO_SUCH_COPY,
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
                    "settle_standby_names",
                    f"let commits on node {src} wait for its replicas only",
                    {"node": src},
                ),
                *self._ends(facts.cluster, parts),
                Step("converge", "tell all nodes", {}),
            ),
            warnings=(
                f"Not followed until they are up to date again: replicas of {counted(parts)}.",
            ),
        )

    def _ends(self, cluster: Cluster, parts: list[str]) -> tuple[Step, ...]:
        """Ends the channel, unless it goes on with other tables."""
        src, dest = self.src, self.dest
        if set(self._followed(cluster)) - set(parts):
            return (
                Step(
                    "take_out",
                    f"take {self.relation} out of the channel from node {src} to node {dest}",
                    {"src": src, "dest": dest, "parts": list[Json](parts)},
                ),
            )
        return (
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
        )
