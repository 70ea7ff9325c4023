"""failover(node_id, accept_data_loss): a dead worker's partitions go on elsewhere.

Submitted by the shardlord itself when it has declared a node dead (`lord.watch`), or by a person. What
it guarantees is in docs/commands/failover.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from shardman import names
from shardman.commands.base import Claim, Facts, Question
from shardman.commands.presence import who_answers
from shardman.commands.takeover import heirs, takeover
from shardman.errors import UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Plan

#: How far a channel has come, by the publisher's WAL.
_UPTO = """
select o.remote_lsn::text from pg_subscription s
  join pg_database d on d.oid = s.subdbid and d.datname = current_database()
  join pg_replication_origin_status o on o.external_id = 'pg_' || s.oid
 where s.subname = %s and o.remote_lsn <> '0/0'
"""


@dataclass(frozen=True)
class Failover:
    """Promotes the replicas of ``node_id``'s primaries; its own replicas are not waited for any more.

    Args:
        node_id: a worker that cannot be reached.
        accept_data_loss: promote also replicas that may lack acknowledged writes.
    """

    name: ClassVar[str] = "failover"

    node_id: int
    accept_data_loss: bool = False

    @classmethod
    def from_opts(cls, opts: Sequence[str | None]) -> Self:
        node_id, accept = opts
        assert node_id is not None
        return cls(int(node_id), accept == "true")

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        held = cluster.copies_on(self.node_id)
        return frozenset(
            {
                Claim("membership", shared=True),
                Claim("channels"),
                *(Claim(f"table {c.relation}", shared=True) for c in held),
                *(Claim(f"part {c.part_name}") for c in held),
            }
        )

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        upto = (
            Question(f"upto {n.id}", n.id, _UPTO, (names.channel(cluster.id, self.node_id, n.id),))
            for n in cluster.workers
            if self.accept_data_loss
        )
        return (*who_answers(cluster, self.node_id), *upto)

    def plan(self, facts: Facts) -> Plan:
        dead = self.node_id
        removed = self._removed(facts.cluster)
        if not removed:
            facts.cluster.worker(dead)
        if facts.answers.get(f"answers {dead}"):
            raise UserError(
                f"node {dead} answers", "Move its partitions away with move_part, or stop it first"
            )
        after = heirs(facts, dead, self.accept_data_loss)
        if not after.promoted and not after.stale:
            raise UserError(
                f"no partition of node {dead} has a replica that may take over",
                "Bring the node back"
                if self.accept_data_loss
                else "Bring the node back, or call failover with accept_data_loss to promote also"
                " replicas that may lack acknowledged writes",
            )
        return takeover(facts, dead, after, removed=removed)

    def _removed(self, cluster: Cluster) -> bool:
        """Whether it is no member any more and still has partitions that nobody took over."""
        node = cluster.nodes.get(self.node_id)
        return (
            node is not None and node.status == "removed" and bool(cluster.copies_on(self.node_id))
        )
