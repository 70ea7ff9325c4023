"""failover(node_id, accept_data_loss, part_name): a dead worker's partitions go on elsewhere; or one
partition does, with those that it goes together with, whose rows are gone from a worker that lives.

Submitted by the shardlord itself when it has declared a node dead (`lord.watchers.nodes`), or by a person. What
it guarantees is in docs/commands/failover.md.
"""

from __future__ import annotations

from shardman import names
from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.commands.reachability import proofs, unproven, who_answers
from shardman.commands.rows_gone import need_rows_gone, replace_primary, rows_gone
from shardman.commands.takeover import heirs, takeover
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Plan

#: How far a channel has come, by the publisher's WAL.
_UPTO = """
select o.remote_lsn::text from pg_subscription s
  join pg_database d on d.oid = s.subdbid and d.datname = current_database()
  join pg_replication_origin_status o on o.external_id = 'pg_' || s.oid
 where s.subname = %s and o.remote_lsn <> '0/0'
"""


@verb
class Failover(Command):
    """Promotes the replicas of ``node_id``'s primaries; its own replicas, and its copies of shared tables, are
    not waited for any more.

    Args:
        node_id: a worker that cannot be reached.
        accept_data_loss: promote also replicas that may lack acknowledged writes.
        part_name: only this partition, with those that it goes together with, of a worker that answers, and
            that has not its data table any more.
    """

    name = "failover"
    summary = "Promote the replicas of a dead worker's partitions now."
    urgent = True

    node_id: int = argument("A dead worker's node id.", kind=Kind.NODE)
    accept_data_loss: bool = argument(
        "Also promote replicas that may lack acknowledged writes, where nothing else is there.",
        default=False,
    )
    part_name: str | None = argument(
        "Only this partition, whose rows are not on the worker any more, though it answers.",
        default=None,
        kind=Kind.PARTITION,
    )

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        meant = None if self.part_name is None else cluster.rank(self.part_name)
        held = [c for c in cluster.copies_on(self.node_id) if meant is None or c.part_name in meant]
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
        asked = (*proofs(cluster, self.node_id), *upto)
        if self.part_name is not None:
            return (
                *who_answers(cluster),
                *asked,
                *rows_gone(cluster, self.node_id, self.part_name),
            )
        return (*who_answers(cluster, self.node_id), *asked)

    def plan(self, facts: Facts) -> Plan:
        dead = self.node_id
        removed = self._removed(facts.cluster)
        if not removed:
            facts.cluster.worker(dead)
        if self.part_name is not None:
            return self._plan_part(facts, self.part_name)
        if facts.answers.get(f"answers {dead}"):
            raise UserError(
                f"node {dead} answers",
                "Move its partitions away with move_part, or stop it first",
                code=Code.NODE_ALIVE,
            )
        after = heirs(facts, dead, self.accept_data_loss)
        if not after.changes:
            raise self._no_successor(
                facts, f"no partition of node {dead} has a", "Bring the node back"
            )
        return takeover(facts, dead, after, removed=removed)

    def _plan_part(self, facts: Facts, part: str) -> Plan:
        need_rows_gone(facts, self.node_id, part)
        parts = facts.cluster.rank(part)
        after = heirs(facts, self.node_id, self.accept_data_loss).only(parts)
        if not after.promoted:
            raise self._no_successor(facts, f"{part} has no", "Bring its rows back from a backup")
        return replace_primary(facts, self.node_id, part, after)

    def _no_successor(self, facts: Facts, whose: str, remedy: str) -> UserError:
        otherwise = (
            ""
            if self.accept_data_loss
            else ", or call failover with accept_data_loss to promote also replicas that may lack"
            " acknowledged writes"
        )
        return UserError(
            f"{whose} replica that may take over{self._doubts(facts)}",
            remedy + otherwise,
            code=Code.NO_SUCCESSOR,
        )

    def _doubts(self, facts: Facts) -> str:
        """Why the first of those that are not believed is not."""
        for (part, node), fault in sorted(unproven(facts, self.node_id).items()):
            if self.part_name is not None and part not in facts.cluster.rank(self.part_name):
                continue
            return f": {part} on node {node} is not believed, {fault}"
        return ""

    def _removed(self, cluster: Cluster) -> bool:
        """Whether it is no member any more and still has partitions that nobody took over."""
        node = cluster.nodes.get(self.node_id)
        return (
            node is not None and node.status == "removed" and bool(cluster.copies_on(self.node_id))
        )
