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
from shardman.model.cluster import Cluster, Node
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
        """Whether it is the lord's own database."""
        lord = cluster.lord
        return (
            Question(
                "lord",
                lord.id,
                "select shardman.same_address(%s, %s)",
                (self.connstring, lord.connstring),
            ),
        )

    def plan(self, facts: Facts) -> Plan:
        # An id is never used twice: names of objects and ranges of sequences carry it.
        node_id = max(facts.cluster.nodes) + 1
        if facts.answers.get("lord"):
            return self._lord(facts.cluster.lord, node_id)
        for node in facts.cluster.nodes.values():
            if node.connstring == self.connstring and node.status != "removed":
                raise UserError(
                    f"{self.connstring} is node {node.id} already", "See shardman.nodes"
                )
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

    def _lord(self, lord: Node, node_id: int) -> Plan:
        """The lord's database has the schema and all metadata, and every node reaches it."""
        if lord.status is not None:
            raise UserError(f"the lord's database is node {lord.id} already", "See shardman.nodes")
        return Plan(
            switch=(
                Step(
                    "lord_joins",
                    f"record the lord's database as worker {node_id}",
                    {"node": node_id, "zone": self.zone},
                ),
            ),
            finish=(Step("converge", "tell all nodes", {}),),
        )
