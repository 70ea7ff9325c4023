"""failover(node_id): a dead worker's partitions go on elsewhere.

Submitted by the shardlord itself when it has declared a node dead (`lord.watch`), or by a person. What
it guarantees is in docs/commands/failover.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from shardman.commands.base import Claim, Facts, Question
from shardman.errors import UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Json, Plan, Step
from shardman.model.succession import Succession, succeed

#: So many partitions are named in a result.
NAMED = 10


@dataclass(frozen=True)
class Failover:
    """Promotes the replicas of ``node_id``'s primaries, and gives its own replicas up.

    Args:
        node_id: a worker that cannot be reached.
    """

    name: ClassVar[str] = "failover"

    node_id: int

    @classmethod
    def from_opts(cls, opts: Sequence[str | None]) -> Self:
        (node_id,) = opts
        assert node_id is not None
        return cls(int(node_id))

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
        return who_answers(cluster)

    def plan(self, facts: Facts) -> Plan:
        cluster, dead = facts.cluster, self.node_id
        cluster.worker(dead)
        if facts.answers.get(f"answers {dead}"):
            raise UserError(
                f"node {dead} answers", "Move its partitions away with move_part, or stop it first"
            )
        after = heirs(facts, dead)
        if not after.promoted and not after.dropped:
            raise UserError(
                f"no partition of node {dead} has a replica on a node that can be reached",
                "Bring the node back",
            )
        return Plan(
            prepare=cut_steps(dead, after),
            switch=(record_step(dead, after),),
            finish=(
                *takeover_steps(dead, after),
                # Whatever is left to do on the dead node waits until it is back.
                returned_step(dead, after),
                Step("converge", "tell all nodes", {}),
            ),
            warnings=_warnings(dead, after),
        )


def who_answers(cluster: Cluster) -> tuple[Question, ...]:
    """Which workers are there to take over."""
    return tuple(Question(f"answers {n.id}", n.id, "select true") for n in cluster.workers)


def heirs(facts: Facts, dead: int) -> Succession:
    """Who takes over from a node, by the answers to `who_answers`."""
    cluster = facts.cluster
    alive = [n.id for n in cluster.workers if facts.answers.get(f"answers {n.id}")]
    return succeed(cluster, dead, [n for n in alive if n != dead])


def cut_steps(dead: int, after: Succession) -> tuple[Step, ...]:
    """The fence against the dead node, should it still run: without its subscribers it cannot
    acknowledge a write."""
    return tuple(
        Step(
            "cut_channel",
            f"let node {node} take nothing more from node {dead}",
            {"node": node, "of": dead},
        )
        for node in after.subscribers
    )


def record_step(dead: int, after: Succession) -> Step:
    """The decision."""
    return Step(
        "succeed",
        f"record who takes over from node {dead}",
        {
            "dead": dead,
            "promoted": dict(after.promoted),
            "dropped": [[part, node] for part, node in after.dropped],
        },
    )


def returned_step(dead: int, after: Succession) -> Step:
    """What the dead node does once it can be reached. Before that its commits must go on waiting:
    whoever still writes to its old primaries would be told that it was done."""
    return Step(
        "returned",
        f"set aside what node {dead} holds",
        _at(
            dead,
            promoted=list[Json](sorted(after.promoted)),
            replicas=[part for part, node in after.dropped if node == dead],
            publishers=list(after.publishers),
            subscribers=list(after.subscribers),
        ),
    )


def takeover_steps(dead: int, after: Succession) -> tuple[Step, ...]:
    """What the other nodes do."""
    return (
        *(
            Step(
                "standbys",
                f"let commits on node {node} wait for its replicas only",
                {"node": node, "also": []},
            )
            for node in after.publishers
        ),
        *(
            Step("promote", f"make {part} on node {node} the primary", _at(node, part=part))
            for part, node in after.promoted.items()
        ),
        *(
            Step(
                "drop_cut_channel",
                f"drop the channel from node {dead} on node {node}",
                _at(node, of=dead),
            )
            for node in after.subscribers
        ),
        *(
            Step(
                "drop_replica",
                f"drop the replica of {part} on node {node}",
                _at(node, part=part, primary=dead),
            )
            for part, node in after.dropped
            if node != dead
        ),
        *(
            Step(
                "drop_publisher",
                f"drop the channel to node {dead} on node {node}",
                _at(node, to=dead),
            )
            for node in after.publishers
        ),
    )


def _at(node: int, **args: Json) -> dict[str, Json]:
    return {"node": node, **args}


def _warnings(dead: int, after: Succession) -> tuple[str, ...]:
    said = []
    if after.promoted:
        said.append(f"Promoted: {_named(list(after.promoted))}.")
    if after.stuck:
        said.append(
            f"Cannot be reached until node {dead} is back, for they have no replica: "
            f"{_named(list(after.stuck))}."
        )
    return tuple(said)


def _named(parts: list[str]) -> str:
    return f"{len(parts)} ({', '.join(parts[:NAMED])}{', …' if len(parts) > NAMED else ''})"
