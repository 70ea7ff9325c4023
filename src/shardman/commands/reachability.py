"""Which workers are there: asked before planning by commands that can do with fewer."""

from __future__ import annotations

from shardman.commands.base import Facts, Question
from shardman.model.cluster import Cluster

#: How long a node that is believed to be dead may take to show that it is not.
BRIEF_S = 0.5


def who_answers(cluster: Cluster, dead: int | None = None) -> tuple[Question, ...]:
    """A question to every active worker.

    Args:
        dead: the one that is believed to be so: clients wait until others take over from it.
    """
    return tuple(
        Question(
            f"answers {n.id}",
            n.id,
            "select true",
            patience=BRIEF_S if n.id == dead else None,
            member=False,
        )
        for n in cluster.workers
    )


def proofs(cluster: Cluster, dead: int) -> tuple[Question, ...]:
    """Which replicas of a node's primaries may not take over, to each node that has some."""
    heirs = {r for part in _primaries(cluster, dead) for r in cluster.replicas_of(part)}
    return tuple(
        Question(f"unproven {n}", n, "select shardman.unproven(%s)", (dead,), member=False)
        for n in sorted(heirs)
    )


def unproven(facts: Facts, dead: int) -> dict[tuple[str, int], str]:
    """By the answers to `proofs`: partitions and nodes of replicas that are not believed, and why. One that
    could not be asked is not; one that was not is."""
    found: dict[tuple[str, int], str] = {}
    for part in _primaries(facts.cluster, dead):
        for node in facts.cluster.replicas_of(part):
            if not facts.answers.get(f"drained {node}", True):
                found[part, node] = "its channel does not show that it has every write"
            answer = facts.answers.get(f"unproven {node}", [])
            if answer is None:
                found[part, node] = "it could not be looked at"
                continue
            for each in answer:
                if each["part"] in (None, part):
                    found[part, node] = str(each["fault"])
    return found


def _primaries(cluster: Cluster, node: int) -> list[str]:
    return [c.part_name for c in cluster.copies_on(node) if c.prv is None]


def answering(facts: Facts) -> list[int]:
    """The workers that answered `who_answers`, by id."""
    return [n.id for n in facts.cluster.workers if facts.answers.get(f"answers {n.id}")]
