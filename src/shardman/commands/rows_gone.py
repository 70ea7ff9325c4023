"""What failover does where a worker lives and the rows of one of its partitions are not there any more:
somebody has dropped the data table, say. Its replicas have them: a table's being dropped does not travel."""

from __future__ import annotations

from shardman import names
from shardman.commands.base import Facts, Question
from shardman.commands.rm_replica import close_channels
from shardman.commands.takeover import outcome, said, tell_step
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Json, Plan, Step
from shardman.model.succession import Succession

#: How long a channel may take to show that nothing more comes: a beat goes through it each second.
CONFIRM_MS = 5_000

_DRAINED = """
select case when exists (select from pg_replication_slots where slot_name = %s)
            then shardman.await_confirmed(%s, pg_current_wal_flush_lsn(), %s) else false end
"""


def rows_gone(cluster: Cluster, node: int, part: str) -> tuple[Question, ...]:
    """To the node of a partition's primary: whether it has the data table, and whether its replicas have all
    that was written before that went."""
    channels = {r: names.channel(cluster.id, node, r) for r in cluster.replicas_of(part)}
    return (
        Question(
            "there",
            node,
            "select shardman.find_relation(shardman.data_table(%s)) is not null",
            (part,),
        ),
        *(
            Question(f"drained {r}", node, _DRAINED, (name, name, CONFIRM_MS))
            for r, name in channels.items()
        ),
    )


def need_rows_gone(facts: Facts, node: int, part: str) -> None:
    """Raises UserError unless a partition's primary is lost on a node that answers."""
    owner = facts.cluster.primary(part).owner
    if owner != node:
        raise UserError(
            f"the primary of {part} is on node {owner}", "Name that node", code=Code.NO_SUCH_COPY
        )
    there = facts.answers["there"]
    if there is None:
        raise UserError(
            f"node {node} does not answer",
            "Bring it back, or call failover without part_name",
            code=Code.NODE_UNREACHABLE,
        )
    if there:
        raise UserError(
            f"node {node} has the rows of {part}",
            "Let a replica change places with it by switch_primary",
            code=Code.NODE_ALIVE,
        )


def replace_primary(facts: Facts, node: int, part: str, after: Succession) -> Plan:
    """The plan by which a replica becomes the primary of a partition that has lost its own. What the node has
    otherwise stays as it is."""
    heir = after.promoted[part][0]
    return Plan(
        switch=(
            Step(
                "succeed",
                f"record node {heir} as owner of {part}",
                {
                    "dead": node,
                    "promoted": {part: list(after.promoted[part])},
                    "stale": [[p, n] for p, n in after.stale],
                    "dropped": list[Json](),
                },
            ),
        ),
        finish=(
            Step(
                "promote", f"make {part} a primary", {"parts": list[Json]([part]), "heirs": [heir]}
            ),
            *(s for r in after.subscribers for s in close_channels([part], node, r)),
            tell_step(after),
        ),
        warnings=said(facts, node, after),
        data=outcome(after),
    )
