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
        )
        for n in cluster.workers
    )


def answering(facts: Facts) -> list[int]:
    """The workers that answered `who_answers`, by id."""
    return [n.id for n in facts.cluster.workers if facts.answers.get(f"answers {n.id}")]
