"""What failover does where a worker lives and the rows of one of its partitions are not there any more:
somebody has dropped the data table, say. Its replicas have them: a table's being dropped does not travel."""

from __future__ import annotations

from shardman import names
from shardman.commands.base import Facts, Question
from shardman.commands.copying import named, release, together
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
    """To the node of a partition's primary: which data tables it has of those that go together, and whether its
    replicas have all that was written before one went."""
    channels = {r: names.channel(cluster.id, node, r) for r in cluster.replicas_of(part)}
    return (
        *(
            Question(
                f"there {each}",
                node,
                "select shardman.find_relation(shardman.data_table(%s)) is not null",
                (each,),
            )
            for each in cluster.rank(part)
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
    there = facts.answers[f"there {part}"]
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
    """The plan by which a replica becomes the primary of a partition that has lost its own, and of all that go
    together with it. What the node has otherwise stays as it is."""
    heir, parts = after.promoted[part][0], list(facts.cluster.rank(part))
    lost = [p for p in parts if not facts.answers[f"there {p}"]]
    kept = [p for p in parts if p not in lost]
    return Plan(
        prepare=_taken_along(kept, node, heir),
        switch=(
            Step(
                "succeed",
                f"record node {heir} as owner of {named(parts)}",
                {
                    "dead": node,
                    "promoted": {p: list(after.promoted[p]) for p in parts},
                    "stale": [[p, n] for p, n in after.stale],
                    "dropped": list[Json](),
                },
            ),
        ),
        finish=(
            *(release(node, heir, facts.cmd_id) if kept else ()),
            Step(
                "promote",
                f"make {named(lost)} {'a primary' if len(lost) == 1 else 'primaries'}",
                {"parts": list[Json](lost), "heirs": [heir] * len(lost)},
            ),
            *(s for r in after.subscribers for s in close_channels(parts, node, r)),
            *(_old_copies(kept, node, heir) if kept else ()),
            tell_step(after),
            *(_plain_route(kept[0], node, heir) if kept else ()),
        ),
        warnings=said(facts, node, after),
        data=outcome(after),
    )


def _taken_along(kept: list[str], node: int, heir: int) -> tuple[Step, ...]:
    """What the node still has of those that go together is in use: no write to it may be lost, so it goes over
    in a cut-over. Other replicas are left behind with those of what is lost, and not waited for."""
    if not kept:
        return ()
    return (
        *(
            Step(
                "fresh_route",
                f"make the route on node {node}",
                {"part": each, "src": node, "dest": heir},
            )
            for each in kept
        ),
        Step(
            "cut_over",
            f"switch {named(kept)} to node {heir}",
            {**together(kept), "src": node, "dest": heir, "old_channels": [heir], "replica": True},
        ),
    )


def _old_copies(kept: list[str], node: int, heir: int) -> tuple[Step, ...]:
    return (
        Step(
            "drop_old_copy",
            f"drop the old copy on node {node}",
            {**together(kept), "src": node, "dest": heir},
        ),
    )


def _plain_route(part: str, node: int, heir: int) -> tuple[Step, ...]:
    return (
        Step(
            "end_fresh_route",
            f"use the plain route on node {node}",
            {"part": part, "src": node, "dest": heir},
        ),
    )
