"""Which nodes get a role as it was changed on the lord's server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: What each role is on a server, as a digest: see shardman.role_proof.
Proofs = Mapping[str, str]


@dataclass(frozen=True)
class Follow:
    """A role that was changed on the lord's server, and is as before on a node."""

    node: int
    role: str
    before: str
    wanted: str


@dataclass
class Roles:
    """What was the same. It starts empty with each leadership: what differs then waits for `sync_roles`, since
    nobody knows any more on which side it was changed."""

    same: dict[tuple[int, str], str] = field(default_factory=dict)

    def due(self, lord: Proofs, others: Mapping[int, Proofs]) -> list[Follow]:
        """What is to be changed.

        A role that some node has otherwise than both before and now was changed there as well, and which
        change is right nobody can say: it is changed nowhere.

        Args:
            others: of the other nodes that answered.
        """
        follows = []
        for role, wanted in lord.items():
            nodes = {n: proofs.get(role) for n, proofs in others.items()}
            for node, proof in nodes.items():
                if proof == wanted:
                    self.same[node, role] = wanted
            behind = {
                n: p
                for n, p in nodes.items()
                if p is not None and self.same.get((n, role)) == p != wanted
            }
            if all(p == wanted or n in behind for n, p in nodes.items()):
                follows += [Follow(n, role, p, wanted) for n, p in sorted(behind.items())]
        return follows
