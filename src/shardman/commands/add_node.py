"""add_node(connstring): a server becomes a worker of the cluster.

It fails whole: a node that could not be added leaves nothing behind on any node. Only what the database
held of a former cluster is taken away first, and never user data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from shardman.commands.base import Claim, Facts, Question
from shardman.errors import UserError
from shardman.model.cluster import Cluster
from shardman.model.plan import Json, Plan, Step


@dataclass(frozen=True)
class AddNode:
    """Adds the server that ``connstring`` (without its password) reaches.

    Args:
        zone: what may fail together with other nodes of that name; None: with no other.
    """

    name: ClassVar[str] = "add_node"

    connstring: str
    zone: str | None = None

    @classmethod
    def from_opts(cls, opts: Sequence[str | None]) -> Self:
        connstring, *rest = opts
        if connstring is None:
            raise UserError("add_node needs a connection string", "Give one")
        return cls(connstring, rest[0] if rest else None)

    def claims(self, cluster: Cluster) -> frozenset[Claim]:
        return frozenset({Claim("membership")})

    def survey(self, cluster: Cluster) -> tuple[Question, ...]:
        return ()

    def plan(self, facts: Facts) -> Plan:
        for node in facts.cluster.nodes.values():
            if node.connstring == self.connstring and node.status != "removed":
                raise UserError(
                    f"{self.connstring} is node {node.id} already", "See shardman.nodes"
                )
        # An id is never used twice: names of objects and ranges of sequences carry it.
        node_id = max(facts.cluster.nodes) + 1
        new: dict[str, Json] = {"node": node_id}
        return Plan(
            prepare=(
                Step("check_node", "check the server", new),
                Step("forget_former", "clear what a former cluster left there", new),
                Step("node_schema", "install the schema", new),
                Step("node_reaches", "check that it reaches the other nodes", new),
                Step("node_metadata", "subscribe to the metadata", new),
                Step("node_tables", "make the routes to all sharded tables", new),
            ),
            switch=(
                Step(
                    "insert_node",
                    f"record the node as {node_id}",
                    {**new, "connstring": self.connstring, "zone": self.zone},
                ),
            ),
            finish=(Step("converge", "tell all nodes", {}),),
        )
