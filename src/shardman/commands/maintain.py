"""maintain(node_id, seconds, maintain): a planned restart of a worker is no failover.

For so long its partitions stay its own although it is away, and nobody waits for the replicas that it has.
These keep their channels, so they catch up by themselves. When the time is over the shardlord ends it
(`lord.watchers.maintenance`), by this same verb. See docs/commands/maintain.md.
"""

from __future__ import annotations

from collections.abc import Iterable

from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.commands.reachability import answering, who_answers
from shardman.commands.takeover import counted
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Json, Plan, Step

#: A day: what is away for longer is no restart.
LONGEST_S = 86_400


@verb
class Maintain(Command):
    """Lets the worker ``node_id`` be away for ``seconds``; with ``maintain`` false that is over."""

    name = "maintain"
    summary = "Let a worker be away for a while, say for a restart, without a failover."

    node_id: int = argument("A worker's node id.", kind=Kind.NODE)
    seconds: int = argument(
        "For how long it may be away.", default=300, at_least=1, at_most=LONGEST_S
    )
    maintain: bool = argument("It may be away.", default=True, off="--end")

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        """Who may be promoted changes: no failover is planned before and decided afterwards."""
        return frozenset(
            {
                Claim("membership", shared=True),
                Claim("channels"),
                Claim(f"node {self.node_id}"),
            }
        )

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        """A commit must not begin to wait for a node that is away."""
        return () if self.maintain else who_answers(cluster)

    def plan(self, facts: Facts) -> Plan:
        cluster = facts.cluster
        _refuse_lord(cluster, self.node_id)
        node = cluster.worker(self.node_id).id
        return self._begin(cluster, node) if self.maintain else self._end(facts, node)

    def _begin(self, cluster: Cluster, node: int) -> Plan:
        replicas = _followed(cluster, node)
        return Plan(
            switch=(
                Step(
                    "begin_maintenance",
                    f"record that node {node} may be away",
                    {"node": node, "seconds": self.seconds},
                ),
            ),
            # Not before it is recorded that none of them is promoted.
            finish=(*_settle(replicas, node), _TELL),
            warnings=tuple(_said(cluster, node)),
        )

    def _end(self, facts: Facts, node: int) -> Plan:
        cluster = facts.cluster
        if not cluster.nodes[node].maintained:
            raise UserError(
                f"node {node} is not in maintenance",
                "See shardman status",
                code=Code.NOT_IN_MAINTENANCE,
            )
        publishers = sorted(_followed(cluster, node))
        for each in (node, *publishers):
            if each not in answering(facts):
                raise UserError(
                    f"node {each} cannot be reached, so node {node} cannot catch up",
                    "Start it; when the time is over others take over from a node that is away",
                    code=Code.NODE_UNREACHABLE,
                )
        return Plan(
            prepare=tuple(s for src in publishers for s in _wait_again(cluster, src, node)),
            switch=(Step("end_maintenance", f"record that node {node} is back", {"node": node}),),
            finish=(*_settle(publishers, node), _TELL),
        )


def _refuse_lord(cluster: Cluster, node_id: int) -> None:
    node = cluster.nodes.get(node_id)
    if node is not None and node.lord and node.status is None:
        raise UserError(
            f"node {node_id} is the lord's, which is no worker: nobody takes anything over from it",
            "Restart its server when no command runs; until it is back queries go on, and no command and no"
            " failover happens. Where that takes long, let another database be the lord before: shardman"
            " promote-lord",
            code=Code.NODE_IS_LORD,
        )


_TELL = Step("converge", "tell all nodes", {})


def _followed(cluster: Cluster, node: int) -> dict[int, list[str]]:
    """The nodes of the primaries that a node's replicas follow, with the partitions."""
    found: dict[int, list[str]] = {}
    for copy in cluster.copies_on(node):
        if copy.prv is not None and copy.stale_since is None:
            found.setdefault(cluster.primary(copy.part_name).owner, []).append(copy.part_name)
    return dict(sorted(found.items()))


def _settle(publishers: Iterable[int], node: int) -> tuple[Step, ...]:
    return tuple(
        Step(
            "settle_standby_names",
            f"let commits on node {src} wait for its synchronous replicas only",
            {"node": src},
        )
        for src in publishers
        if src != node
    )


def _wait_again(cluster: Cluster, src: int, node: int) -> tuple[Step, ...]:
    """What was acknowledged meanwhile counts only when it has arrived."""
    arrived = Step(
        "await_channel", f"let node {node} catch up with node {src}", {"src": src, "dest": node}
    )
    wait = Step(
        "standby_names",
        f"let commits on node {src} wait for node {node}",
        {"node": src, "also": list[Json]([node])},
    )
    sync = any(
        cluster.tables[cluster.primary(part).relation].sync
        for part in _followed(cluster, node)[src]
    )
    return (arrived, *((wait, arrived) if sync else ()))


def _said(cluster: Cluster, node: int) -> Iterable[str]:
    replicas = [p for parts in _followed(cluster, node).values() for p in parts]
    if replicas:
        yield f"Neither waited for nor promoted meanwhile: replicas of {counted(replicas)}."
    primaries = [c.part_name for c in cluster.copies_on(node) if c.prv is None]
    if primaries:
        yield f"Not taken over while the node is away: {counted(primaries)}."
