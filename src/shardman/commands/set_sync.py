"""set_sync(relation, sync): whether a commit waits until every replica of a table has it."""

from __future__ import annotations

from shardman.commands.arguments import Kind, argument
from shardman.commands.base import Claim, Command, Facts, Question, verb
from shardman.commands.reachability import answering, who_answers
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Json, Plan, Step


@verb
class SetSync(Command):
    """Makes the replicas of ``relation`` synchronous or asynchronous, now and later ones."""

    name = "set_sync"
    summary = "Let commits wait for the replicas of a table, or not."

    relation: str = argument("A sharded table, written as in SQL.", kind=Kind.RELATION)
    sync: bool = argument("Whether a commit waits until every replica has it.", words=("on", "off"))

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        return frozenset(
            {
                Claim("membership", shared=True),
                Claim("channels"),
                Claim(f"table {self.relation}"),
            }
        )

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        """A commit must not begin to wait for a node that is away."""
        return who_answers(cluster) if self.sync else ()

    def plan(self, facts: Facts) -> Plan:
        facts.cluster.table(self.relation)
        links = self._links(facts.cluster)
        if self.sync:
            _need(facts, links)
        return Plan(
            prepare=tuple(s for n, dests in links.items() for s in _begin(n, dests))
            if self.sync
            else (),
            switch=(
                Step(
                    "set_sync",
                    f"record that commits {'wait' if self.sync else 'do not wait'}"
                    f" for replicas of {self.relation}",
                    {"relation": self.relation, "sync": self.sync},
                ),
            ),
            finish=(
                *(_settle(node) for node in links),
                Step("converge", "tell all nodes", {"relation": self.relation}),
            ),
        )

    def _links(self, cluster: Cluster) -> dict[int, list[int]]:
        """The nodes of replicas that follow, by the node of their primaries."""
        links: dict[int, set[int]] = {}
        for part, primary in cluster.primaries.items():
            if primary.relation == self.relation and (replicas := cluster.replicas_of(part)):
                links.setdefault(primary.owner, set()).update(replicas)
        return {node: sorted(dests) for node, dests in sorted(links.items())}


def _need(facts: Facts, links: dict[int, list[int]]) -> None:
    """Raises UserError when a node is away."""
    there = answering(facts)
    for node in sorted({n for src, dests in links.items() for n in (src, *dests)}):
        if node not in there:
            raise UserError(
                f"node {node} cannot be reached, so it cannot be waited for",
                "Start it, or take its replicas off with rm_replica",
                code=Code.NODE_UNREACHABLE,
            )


def _begin(node: int, dests: list[int]) -> tuple[Step, ...]:
    """What was acknowledged before counts only when it has arrived."""
    arrived = tuple(
        Step(
            "await_channel",
            f"let node {dest} catch up with node {node}",
            {"src": node, "dest": dest},
        )
        for dest in dests
    )
    wait = Step(
        "standby_names",
        f"let commits on node {node} wait for node {', '.join(map(str, dests))}",
        {"node": node, "also": list[Json](dests)},
    )
    return (*arrived, wait, *arrived)


def _settle(node: int) -> Step:
    return Step(
        "settle_standby_names",
        f"let commits on node {node} wait for its synchronous replicas only",
        {"node": node},
    )
