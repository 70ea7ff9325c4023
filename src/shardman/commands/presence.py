"""Which workers are there: asked before planning by commands that can do with fewer."""

from __future__ import annotations

from shardman.commands.base import Facts, Question
from shardman.model.cluster import Cluster


def who_answers(cluster: Cluster) -> tuple[Question, ...]:
    """A question to every active worker."""
    return tuple(Question(f"answers {n.id}", n.id, "select true") for n in cluster.workers)


def answering(facts: Facts) -> list[int]:
    """The workers that answered `who_answers`, by id."""
    return [n.id for n in facts.cluster.workers if facts.answers.get(f"answers {n.id}")]
