"""What watchers that work on all nodes have in common: how to come to them."""

from __future__ import annotations

from dataclasses import dataclass

from shardman.lord.ask import Askers
from shardman.lord.metadata import Metadata
from shardman.lord.policies.nodes import NodeHealth
from shardman.lord.sessions import Sessions


@dataclass(frozen=True)
class Reach:
    """The nodes, as one leadership comes to them.

    Args:
        sessions: for work of its own.
        askers: for short questions.
        metadata: which nodes there are.
        health: which of them answer.
    """

    sessions: Sessions
    askers: Askers
    metadata: Metadata
    health: NodeHealth

    def nodes(self) -> list[int]:
        """The members that answer, as far as is known."""
        return sorted({*self.metadata.known.cluster.members} - self.health.silent())
