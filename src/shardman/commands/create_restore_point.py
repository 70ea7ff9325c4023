"""create_restore_point(point): a restore point on all nodes that no transaction of a client over several nodes
straddles."""

from __future__ import annotations

from shardman.commands.arguments import argument
from shardman.commands.base import Claim, Command, Facts, verb
from shardman.errors import Code, UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Plan, Step

#: In bytes: MAXFNAMELEN of PostgreSQL allows one more for the end.
LONGEST = 63


@verb
class CreateRestorePoint(Command):
    """Makes the restore point ``point`` on all nodes, while nothing else changes the cluster."""

    name = "create_restore_point"
    summary = "Make a restore point on all nodes that no transaction over several nodes straddles."

    point: str = argument("For recovery_target_name; at most 63 bytes.")

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        # Not shared: a move is one change of several nodes, too.
        return frozenset({Claim("membership")})

    def plan(self, facts: Facts) -> Plan:
        if not 0 < len(self.point.encode()) <= LONGEST:
            raise UserError(
                f"the name of a restore point has 1 to {LONGEST} bytes",
                "Choose another",
                code=Code.BAD_ARGUMENT,
            )
        nodes = sorted(facts.cluster.members)
        return Plan(
            prepare=(
                Step(
                    "make_restore_points",
                    f"make the restore point {self.point} on all nodes",
                    {"nodes": list(nodes), "point": self.point},
                ),
            )
        )
